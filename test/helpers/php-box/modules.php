<?php
// Download, checks and installation of modules, with what they depend on.

final class BoxModules
{
    /** @var array<string, array{version: string, path: string, bytes: int, sha256: string, inner: string}> what was fetched */
    public array $fetched = [];

    /** @var list<array{module: string, version: ?string}>  of the last look at dependencies */
    private array $missing = [];

    public function __construct(
        private BoxState $box,
        private BoxNet $net,
        private BoxOnline $online,
        private BoxGpg $gpg,
    ) {
    }

    /** Fetches the listed version and puts it into the folder of modules. @return list<string>  errors */
    public function download(string $name): array
    {
        $entry = $this->online->modules()[$name] ?? [];
        if (empty($entry['rawname'])) {
            return ['Retrieved Module XML Was Empty'];
        }
        $conflicts = $this->conflicts($entry);
        if ($conflicts !== []) {
            return $conflicts;
        }
        $cache = $this->cache();
        $file = "$cache/" . basename($entry['location']);
        if (is_file($file)) {
            $plain = $this->fromCache($entry, $file);
            if ($plain !== null) {
                return $this->unpack($name, $plain);
            }
        }
        [$url, $form] = $this->source($entry['location']);
        if ($url === null) {
            return ['Unable to connect to servers from URLs provided'];
        }
        $path = (string) parse_url($url, PHP_URL_PATH);
        try {
            $body = $this->net->post($url, $form, 1800)['body'];
        } catch (RuntimeException $error) {
            return [$error->getMessage()];
        }
        file_put_contents($file, $body);
        $this->fetched[$name] = ['version' => $entry['version'], 'path' => $path, 'bytes' => strlen($body), 'sha256' => hash('sha256', $body), 'inner' => ''];
        $errors = $this->checked($entry, $file);
        if ($errors !== []) {
            return $errors;
        }
        $this->fetched[$name]['inner'] = hash_file('sha256', $file);
        return $this->unpack($name, $file);
    }

    /** `download --tag`: one version that the server is asked for. @return list<string>  errors */
    public function downloadTag(string $name, string $version): array
    {
        $facts = $this->box->db['facts'];
        $form = ['deploymentid' => $facts['deployment'] ?? 0, 'phpver' => $facts['phpver'], 'rawname' => $name, 'tag' => $version];
        $form += ['framework' => "{$this->box->db['major']}.0", 'distro' => $facts['distro'], 'distrover' => $facts['distrover']];
        $form += ['pbxver' => $this->box->framework()];
        $answer = json_decode((string) $this->online->contents('/mversion.php', $form, 10), true);
        if (empty($answer)) {
            return ["Unable to update module $name - $version, it does not exist:"];
        }
        // The mirror is put before the path as it is written in the settings.
        $mirror = explode(',', $this->box->db['settings']['MODULE_REPO'])[0];
        return $this->downloadUrl("$mirror/modules/{$answer['location']}");
    }

    /** `downloadinstall URL`: nothing is known of the file but what it holds. @return list<string>  errors */
    public function downloadUrl(string $url): array
    {
        if ($this->net->head($url) === []) {
            return ["Failed download module tarball from $url, server may be down"];
        }
        $file = $this->cache() . '/' . basename((string) parse_url($url, PHP_URL_PATH));
        $answer = $this->box->db['major'] >= 17 ? $this->net->get($url, 1800) : $this->net->post($url, [], 1800);
        file_put_contents($file, $answer['body']);
        $served = hash('sha256', $answer['body']);
        if (str_ends_with($file, '.gpg')) {
            try {
                $this->gpg->trust();
                if (!$this->gpg->verifyFile($file)) {
                    return ["File Integrity failed for $file - aborting (GPG Verify File check failed)"];
                }
                $file = $this->gpg->unwrap($file);
            } catch (RuntimeException $error) {
                return ["File Integrity failed for $file - aborting (Cause: {$error->getMessage()})"];
            }
        }
        $work = $this->cache() . '/' . uniqid('upload');
        mkdir($work);
        exec('tar xf ' . escapeshellarg($file) . ' -C ' . escapeshellarg($work) . ' 2>/dev/null', $output, $code);
        $folders = $code === 0 ? glob("$work/*", GLOB_ONLYDIR) : [];
        if (count($folders) !== 1 || !is_file("$folders[0]/module.xml")) {
            return ["Incorrect Number of Directories for $file"];
        }
        $module = BoxXml::parse(file_get_contents("$folders[0]/module.xml"))['module'];
        $name = $module['rawname'];
        $this->fetched[$name] = ['version' => $module['version'], 'path' => (string) parse_url($url, PHP_URL_PATH), 'bytes' => strlen($answer['body']), 'sha256' => $served, 'inner' => hash_file('sha256', $file)];
        $this->move($folders[0], $name);
        exec('rm -rf ' . escapeshellarg($work));
        return [];
    }

    /** Brings what a local module still needs. */
    public function resolve(string $name): bool
    {
        if ($this->unmet($name) === []) {
            return true;
        }
        foreach ($this->missing as ['module' => $needed, 'version' => $version]) {
            $this->box->say("Detected Missing Dependency of: $needed $version");
            if (!$this->obtain($needed, (string) $version)) {
                return false;
            }
        }
        return true;
    }

    /** @return list<string>  errors */
    public function install(string $name): array
    {
        $module = $this->box->local()[$name] ?? null;
        if ($module === null) {
            return ['Cannot find module'];
        }
        if ($module['status'] === BoxState::BROKEN) {
            return ["Module $name is broken and cannot be installed. You should try to download it again."];
        }
        if ($module['status'] === BoxState::DISABLED) {
            return [];
        }
        $errors = $this->unmet($name);
        if ($errors !== []) {
            return $errors;
        }
        $folder = "{$this->box->modules}/$name";
        $this->box->db['signatures'][$name] = $this->gpg->verifyModule($folder);
        $this->box->db['modules'][$name] = ['version' => $module['version'], 'enabled' => 1];
        if ($name === 'framework') {
            $this->box->db['admin']['version'] = $module['version'];
            foreach (glob("$folder/amp_conf/htdocs/admin/libraries/BMO/*.key") as $key) {
                copy($key, "{$this->box->keys}/" . basename($key));
            }
        }
        $this->box->say("Module $name version {$module['version']} successfully installed");
        return [];
    }

    /** `ma install`, a program of its own: what fails in it does not stop the one that started it. */
    public function installProgram(string $name): void
    {
        if (!$this->resolve($name)) {
            $this->box->say("Unable to resolve dependencies for module $name");
            return;
        }
        if ($this->failed($this->install($name))) {
            $this->box->say("Unable to install module $name");
        }
    }

    /** What is done goes by the state before the download: an old one that is switched off gets new files and is switched
     *  on, but not installed, so that it waits for its upgrade. */
    private function obtain(string $name, string $version): bool
    {
        $local = $this->box->local()[$name] ?? null;
        if ($local === null) {
            return $this->bring($name);
        }
        if ($version !== '' && $this->isOlder($local, $version) && !$this->bring($name)) {
            return false;
        }
        if (!$this->resolve($name)) {
            return false;
        }
        return match ($local['status']) {
            BoxState::NOT_INSTALLED, BoxState::NEEDS_UPGRADE => !$this->failed($this->install($name)),
            BoxState::DISABLED => !$this->failed($this->enable($name)),
            BoxState::BROKEN => $this->bring($name),
            default => true,
        };
    }

    /** @return list<string>  errors */
    private function enable(string $name): array
    {
        $errors = $this->unmet($name);
        if ($errors === []) {
            $this->box->db['modules'][$name]['enabled'] = 1;
        }
        return $errors;
    }

    private function bring(string $name): bool
    {
        $this->box->say("Downloading Missing Dependency of: $name");
        return !$this->failed($this->download($name)) && $this->resolve($name) && !$this->failed($this->install($name));
    }

    private function failed(array $errors): bool
    {
        foreach ($errors as $error) {
            $this->box->say(" - $error");
        }
        return $errors !== [];
    }

    private function isOlder(array $local, string $version): bool
    {
        $known = array_filter([$local['dbversion'] ?? null, $local['version'] ?? null]);
        return array_filter($known, fn (string $one): bool => compare_versions($one, $version) < 0) !== [];
    }

    /** Why a module cannot run here; fills `missing`. @return list<string> */
    private function unmet(string $name): array
    {
        $this->missing = [];
        $depends = $this->box->local()[$name]['depends'] ?? [];
        $look = new BoxDepends($this->box);
        $errors = $look->errors(is_array($depends) ? $depends : []);
        $this->missing = $look->missing;
        return $errors;
    }

    /** @return list<string> */
    private function conflicts(array $entry): array
    {
        $listed = $entry['breaking']['module'] ?? [];
        $found = [];
        foreach (isset($listed['rawname']) ? [$listed] : $listed as $one) {
            $local = $this->box->local()[$one['rawname']] ?? null;
            $isHere = $local !== null && $local['status'] !== BoxState::NOT_INSTALLED;
            if ($isHere && (empty($one['version']) || compare_versions($local['dbversion'] ?? '', $one['version']) < 0)) {
                $found[] = "{$entry['rawname']}: conflicts with {$one['rawname']}";
            }
        }
        return $found;
    }

    /** @return array{?string, array}  the first mirror that answers at all, and the form it is sent */
    private function source(string $location): array
    {
        if (parse_url($location, PHP_URL_SCHEME) === 'https') {
            return [$this->net->head($location) === [] ? null : $location, []];
        }
        foreach (explode(',', $this->box->db['settings']['MODULE_REPO']) as $mirror) {
            if ($this->net->head("$mirror/modules/$location") !== []) {
                return ["$mirror/modules/$location", $this->box->form(false)];
            }
        }
        return [null, []];
    }

    /** @param string $file  becomes the plain archive @return list<string>  errors */
    private function checked(array $entry, string &$file): array
    {
        $why = fn (string $cause): array => ["File Integrity failed for $file - aborting ($cause)"];
        if (($entry['signed']['type'] ?? '') === 'gpg') {
            if ($entry['signed']['sha1'] !== sha1_file($file)) {
                return $why('sha1 did not match');
            }
            try {
                $this->gpg->trust();
                if (!$this->gpg->verifyFile($file) && !($this->gpg->refreshKeys() && $this->gpg->verifyFile($file))) {
                    return $why('GPG Verify File check failed');
                }
                $file = $this->gpg->unwrap($file);
            } catch (RuntimeException $error) {
                return $why("Cause: {$error->getMessage()}");
            }
        }
        if (!empty($entry['md5sum']) && $entry['md5sum'] !== md5_file($file)) {
            return $why('md5sum did not match');
        }
        return !empty($entry['sha1sum']) && $entry['sha1sum'] !== sha1_file($file) ? $why('sha1 did not match') : [];
    }

    /** An archive that already lies there is used without a question. @return ?string  the plain archive */
    private function fromCache(array $entry, string $file): ?string
    {
        if (($entry['signed']['type'] ?? '') === 'gpg' && $entry['signed']['sha1'] === sha1_file($file)) {
            try {
                $this->gpg->trust();
                $file = $this->gpg->verifyFile($file) ? $this->gpg->unwrap($file) : $file;
            } catch (RuntimeException) {
                return null;
            }
        }
        $isIt = ($entry['sha1sum'] ?? '') === sha1_file($file) || ($entry['md5sum'] ?? '') === md5_file($file);
        return $isIt ? $file : null;
    }

    /** @return list<string>  errors */
    private function unpack(string $name, string $file): array
    {
        $cache = $this->cache();
        exec('rm -rf ' . escapeshellarg("$cache/$name"));
        exec('tar zxf ' . escapeshellarg($file) . ' -C ' . escapeshellarg($cache) . ' 2>/dev/null', $output, $code);
        if ($code !== 0) {
            return ["Could not untar $file to $cache"];
        }
        unlink($file);
        if (!is_dir("$cache/$name")) {
            return ["Could not move $cache/$name"];
        }
        $this->move("$cache/$name", $name);
        return [];
    }

    private function move(string $from, string $name): void
    {
        exec('rm -rf ' . escapeshellarg("{$this->box->modules}/$name"));
        rename($from, "{$this->box->modules}/$name");
    }

    private function cache(): string
    {
        $folder = "{$this->box->modules}/_cache";
        is_dir($folder) || mkdir($folder);
        return $folder;
    }
}
