<?php
// Signatures as a box checks them: real GnuPG with the keyring of the web server's user, keys from the folder of key
// files, trust from masters. Key servers are behind the gap: a key that is in no file is not found.

final class BoxGpg
{
    public const GOOD = 1;
    public const TAMPERED = 2;
    public const INVALID = 4;
    public const UNSIGNED = 8;
    public const TRUSTED = 128;

    private const SECONDS = 10;

    private bool $trusts = false;

    /**
     * @param string $home     keyring
     * @param string $keyDir   where key files lie: <16 hex digits>.key, and signatures/ below it
     * @param list<string> $masters  fingerprints
     */
    public function __construct(private string $home, private string $keyDir, private array $masters)
    {
    }

    /** Makes the masters ultimately trusted, once in a program. @throws RuntimeException where the file of one is missing */
    public function trust(): void
    {
        if ($this->trusts) {
            return;
        }
        foreach ($this->masters as $fingerprint) {
            $this->getKey($fingerprint);
        }
        $known = $this->run(['--export-ownertrust'])['stdout'];
        foreach ($this->masters as $fingerprint) {
            if (!str_contains($known, "$fingerprint:")) {
                $this->run(['--import-ownertrust'], "$fingerprint:6:\n");
            }
        }
        $this->trusts = true;
    }

    /** Whether a trusted key made the inline signature, and a master is or certified that key. */
    public function verifyFile(string $file, bool $again = true): bool
    {
        $lines = $this->run(['--verify', $file])['status'];
        if ($this->has($lines, 'BADSIG') !== null) {
            return false;
        }
        $missing = $this->has($lines, 'NO_PUBKEY');
        if ($missing !== null) {
            return $again && $this->getKey($missing[0]) && $this->verifyFile($file, false);
        }
        $made = $this->has($lines, 'VALIDSIG');
        if ($made === null || !$this->isTrusted($lines)) {
            return false;
        }
        $masters = array_map(fn (string $one): string => substr($one, -16), $this->masters);
        $listing = $this->run(['--keyid-format', 'long', '--with-colons', '--check-sigs', $made[0]])['stdout'];
        foreach (explode("\n", $listing) as $line) {
            if (in_array(explode(':', $line)[4] ?? '', $masters, true)) {
                return true;
            }
        }
        return false;
    }

    /** Brings the shipped keys in again; true where no key is left that only a key server could renew. */
    public function refreshKeys(): bool
    {
        $shipped = [];
        foreach (glob("$this->keyDir/*.key") as $file) {
            $this->run(['--import', $file]);
            $shipped[] = basename($file, '.key');
        }
        preg_match_all('/^pub:(?:[^:]*:){3}([0-9A-F]{16}):/m', $this->run(['--list-keys', '--with-colons'])['stdout'], $all);
        return array_diff($all[1], $shipped) === [];
    }

    /** Writes what is inside the signed message beside it. @return string  the file without `.gpg` */
    public function unwrap(string $file): string
    {
        $to = substr($file, 0, -4);
        if ($this->run(['--batch', '--yes', '--out', $to, '--decrypt', $file])['code'] !== 0) {
            throw new RuntimeException('Unable to strip signature');
        }
        return $to;
    }

    /** State bits of the module.sig of a folder. */
    public function verifyModule(string $folder): int
    {
        if (!is_file("$folder/module.sig")) {
            return self::UNSIGNED;
        }
        $out = $this->run(['--output', '-', '--decrypt', "$folder/module.sig"]);
        $missing = $this->has($out['status'], 'NO_PUBKEY');
        if ($missing !== null) {
            try {
                $this->getKey($missing[0]);
            } catch (RuntimeException) {
                return self::INVALID;
            }
            $out = $this->run(['--output', '-', '--decrypt', "$folder/module.sig"]);
        }
        if ($this->has($out['status'], 'BADSIG') !== null) {
            return self::TAMPERED;
        }
        if (!$this->isTrusted($out['status'])) {
            return self::TAMPERED | self::INVALID;
        }
        foreach (parse_ini_string($out['stdout'], true)['hashes'] ?? [] as $path => $hash) {
            if (!is_file("$folder/$path") || hash_file('sha256', "$folder/$path") !== $hash) {
                return self::TAMPERED | self::TRUSTED;
            }
        }
        return self::GOOD | self::TRUSTED;
    }

    /** Sees to it that a key is in the keyring. @throws RuntimeException where no file has it */
    private function getKey(string $key): bool
    {
        if ($this->run(['--list-keys', $key])['code'] === 0) {
            return true;
        }
        $long = substr($key, -16);
        foreach ([$this->keyDir, "$this->keyDir/signatures"] as $folder) {
            foreach ([$long, substr($key, -8)] as $name) {
                if (is_file("$folder/$name.key")) {
                    $this->run(['--import', "$folder/$name.key"]);
                    return true;
                }
            }
        }
        throw new RuntimeException("Unable to download GPG key $long, or find $this->keyDir/$long.key");
    }

    private function isTrusted(array $lines): bool
    {
        return $this->has($lines, 'TRUST_ULTIMATE') !== null || $this->has($lines, 'TRUST_FULLY') !== null;
    }

    /** @return ?list<string>  words after the keyword of the first such status line */
    private function has(array $lines, string $keyword): ?array
    {
        foreach ($lines as $line) {
            $words = explode(' ', $line);
            if (($words[1] ?? '') === $keyword) {
                return array_slice($words, 2);
            }
        }
        return null;
    }

    /** @return array{status: list<string>, stdout: string, code: int} */
    private function run(array $args, string $input = ''): array
    {
        $fixed = ['/usr/bin/gpg', '--homedir', $this->home, '--no-permission-warning', '--no-tty', '--no-autostart', '--disable-dirmngr', '--status-fd', '3'];
        $pipes = [];
        $ends = [['pipe', 'r'], ['pipe', 'w'], ['file', '/dev/null', 'w'], ['pipe', 'w']];
        $process = proc_open(array_merge($fixed, $args), $ends, $pipes, '/', ['PATH' => '/bin:/usr/bin', 'HOME' => $this->home]);
        fwrite($pipes[0], $input);
        fclose($pipes[0]);
        $ready = [$pipes[3]];
        $none = null;
        if (!stream_select($ready, $none, $none, self::SECONDS)) {
            throw new RuntimeException('GPG took too long');
        }
        $stdout = stream_get_contents($pipes[1]);
        $status = stream_get_contents($pipes[3]);
        return ['status' => explode("\n", rtrim($status)), 'stdout' => $stdout, 'code' => proc_close($process)];
    }
}
