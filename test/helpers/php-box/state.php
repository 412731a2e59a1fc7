<?php
// What a box remembers: its database is one JSON document, its web root a folder.

function compare_versions(string $a, string $b): int
{
    $plain = fn (string $version): string => str_replace('rc', 'RC', strtolower($version));
    return version_compare($plain($a), $plain($b));
}

/** @param string $operator  as in a requirement; '' is `ge` */
function is_version(string $installed, string $operator, string $wanted): bool
{
    $order = compare_versions($installed, $wanted);
    return match (strtolower($operator)) {
        'lt' => $order < 0,
        'le' => $order <= 0,
        'gt' => $order > 0,
        'eq', '=', '==' => $order === 0,
        'ne', '!=' => $order !== 0,
        default => $order >= 0,
    };
}

final class BoxState
{
    public const NOT_INSTALLED = 0;
    public const DISABLED = 1;
    public const ENABLED = 2;
    public const NEEDS_UPGRADE = 3;
    public const BROKEN = -1;

    public array $db;
    public string $modules;
    public string $keys;
    /** @var list<string> */
    public array $log = [];

    public function __construct(public string $dir)
    {
        $this->db = json_decode(file_get_contents("$dir/box.json"), true, 512, JSON_THROW_ON_ERROR);
        $this->modules = "$dir/html/admin/modules";
        $this->keys = "$dir/html/admin/libraries/BMO";
    }

    public function save(): void
    {
        file_put_contents("$this->dir/box.json", json_encode($this->db, JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES | JSON_THROW_ON_ERROR));
    }

    public function say(string $line): void
    {
        $this->log[] = $line;
    }

    public function framework(): string
    {
        return $this->db['admin']['version'];
    }

    /** Keeps a part of the list, or says what was kept. */
    public function keep(string $id, mixed $data): void
    {
        $this->db['module_xml'][$id] = ['time' => time(), 'data' => $data];
    }

    public function kept(string $id): mixed
    {
        return $this->db['module_xml'][$id]['data'] ?? null;
    }

    /**
     * Modules with what their module.xml says, their status and the version that was installed (`dbversion`).
     * @return array<string, array>
     */
    public function local(): array
    {
        $found = [];
        foreach (glob("$this->modules/*/module.xml") as $file) {
            $name = basename(dirname($file));
            if ($name === '_cache') {
                continue;
            }
            $found[$name] = BoxXml::parse(file_get_contents($file))['module'] ?? [];
            $found[$name]['status'] = self::NOT_INSTALLED;
        }
        foreach ($this->db['modules'] as $name => $row) {
            $found[$name]['dbversion'] = $row['version'];
            $found[$name]['status'] = match (true) {
                !isset($found[$name]['version']) => self::BROKEN,
                !$row['enabled'] => self::DISABLED,
                compare_versions($row['version'], $found[$name]['version']) === 0 => self::ENABLED,
                default => self::NEEDS_UPGRADE,
            };
        }
        ksort($found);
        return $found;
    }

    /** The form of the requests that say what the box is. */
    public function form(bool $forList): array
    {
        $facts = $this->db['facts'];
        $form = [];
        if ($this->kept('installid') === null) {
            $form['firstinstall'] = 'yes';
        }
        if ($forList) {
            $form['lastaccesseduuid'] = $this->kept('accessedid') ?? self::uuid();
            $form['currentuuid'] = self::uuid();
        }
        if ($this->kept('installid') === null) {
            $this->keep('installid', self::uuid());
        }
        $form += ['machineid' => hash('sha256', $facts['machine']), 'installid' => $this->kept('installid'), 'type' => ''];
        foreach ($this->local() as $name => $module) {
            if ($module['status'] !== self::BROKEN) {
                $form['modules'][$name] = [
                    'version' => $module['version'],
                    'status' => $module['status'],
                    'rawname' => $module['rawname'],
                    'license' => ($module['license'] ?? '') ?: 'unknown',
                ];
            }
        }
        $expired = $this->db['major'] >= 17 ? ['enableExpiredModuleList' => 1] : [];
        $form += self::given(['brandid' => $facts['brand'], 'deploymentid' => $facts['deployment']]) + $expired;
        $form += ['astver' => $facts['astver'], 'phpver' => $facts['phpver'], 'distro' => $facts['distro'], 'distrover' => $facts['distrover']];
        $form += ['pbxver' => $this->framework(), 'ucount' => $facts['ucount'], 'extraid' => base64_encode('[]')];
        return $form + self::given(['zend' => $facts['zend'], 'ioncube' => $facts['ioncube']]);
    }

    private static function given(array $fields): array
    {
        return array_filter($fields, fn ($value): bool => $value !== null);
    }

    private static function uuid(): string
    {
        $hex = bin2hex(random_bytes(16));
        $hex[12] = '4';
        $hex[16] = '8';
        return implode('-', [substr($hex, 0, 8), substr($hex, 8, 4), substr($hex, 12, 4), substr($hex, 16, 4), substr($hex, 20)]);
    }
}

/** The end of a program of the box, with its exit status. */
final class BoxExit extends RuntimeException
{
}
