<?php
// The list of modules as a box fetches, keeps and understands it.

final class BoxOnline
{
    private const FRESH_SECONDS = 300;

    public function __construct(private BoxState $box, private BoxNet $net)
    {
    }

    /**
     * What is to be had, by rawname; the answer of five minutes ago where there is one.
     * @param bool $asks  false: only what is kept, however old
     * @throws RuntimeException where the answer is no XML
     */
    public function modules(bool $asks = true): array
    {
        if ($asks) {
            $this->refresh();
        }
        $modules = $this->box->kept('modules');
        if (empty($modules)) {
            return [];
        }
        $this->readSecurity($this->box->kept('security'));
        return $this->chosen(isset($modules['rawname']) ? [$modules] : $modules);
    }

    /** Announcements; whatever comes, or nothing, is fine. */
    public function announcements(): string
    {
        return $this->contents('/version-' . $this->box->framework() . '.html', []) ?? '';
    }

    /** What the list was: active repositories decide what is new. @return list<string> */
    public function installable(array $online): array
    {
        $local = $this->box->local();
        $found = [];
        foreach ($online as $name => $module) {
            $status = $local[$name]['status'] ?? null;
            $isActive = in_array(strtolower($module['repo'] ?? ''), $this->box->db['repos'], true);
            if (!$isActive && ($status === null || $status === BoxState::NOT_INSTALLED)) {
                continue;
            }
            if (in_array($status, [null, BoxState::NEEDS_UPGRADE, BoxState::NOT_INSTALLED], true)) {
                $found[] = $name;
            }
        }
        return $found;
    }

    /** @return array<string, array{from: string, to: string}> */
    public function upgrades(array $online): array
    {
        $found = [];
        foreach ($this->box->local() as $name => $module) {
            if (!in_array($module['status'], [BoxState::ENABLED, BoxState::NEEDS_UPGRADE], true) || !isset($online[$name])) {
                continue;
            }
            $isOlder = compare_versions($module['version'], $online[$name]['version']) < 0;
            if ($module['status'] === BoxState::NEEDS_UPGRADE || $isOlder) {
                $found[$name] = ['from' => $module['version'], 'to' => $online[$name]['version']];
            }
        }
        return $found;
    }

    /** First of the mirrors that gives any text; its status does not matter. */
    public function contents(string $path, array $form, int $timeout = 30): ?string
    {
        foreach (explode(',', $this->box->db['settings']['MODULE_REPO']) as $mirror) {
            try {
                // the request library joins the path to the origin alone: whatever else the setting holds is lost
                $answer = $this->net->post($this->origin($mirror) . $path, $form + ['sv' => 2], $timeout);
            } catch (RuntimeException $error) {
                $this->box->say("Failed to get remote file, error was: {$error->getMessage()}");
                continue;
            }
            if (isset($answer['headers']['x-current-uuid'])) {
                $this->box->keep('accessedid', $answer['headers']['x-current-uuid']);
            }
            if (!empty($answer['body'])) {
                return $answer['body'];
            }
        }
        return null;
    }

    private function refresh(): void
    {
        $box = $this->box;
        $repo = $box->db['settings']['MODULE_REPO'];
        $isNew = $box->kept('module_repo') !== $repo;
        $box->keep('module_repo', $repo);
        $age = time() - ($box->db['module_xml']['modules']['time'] ?? 0);
        if ($isNew || $box->db['settings']['MODULEADMIN_SKIP_CACHE'] || $age > self::FRESH_SECONDS || empty($box->kept('modules'))) {
            $this->fetch();
        }
    }

    private function origin(string $mirror): string
    {
        $parts = parse_url($mirror);
        return "{$parts['scheme']}://{$parts['host']}" . (isset($parts['port']) ? ":{$parts['port']}" : '');
    }

    private function fetch(): void
    {
        $box = $this->box;
        $text = $this->contents("/all-{$box->db['major']}.0.xml", $box->form(true));
        if ($text === null) {
            $box->say('the list could not be fetched');
            return;
        }
        try {
            $xml = BoxXml::parse($text)['xml'] ?? [];
        } catch (RuntimeException) {
            throw new RuntimeException('Unable to Parse XML response from Mirror. See the log for more details');
        }
        if (!empty($xml['module'])) {
            if (!empty($box->kept('modules'))) {
                $this->notify($box->kept('modules'), $xml['module']);
            }
            $box->keep('modules', $xml['module']);
        }
        foreach (['edge', 'beta'] as $section) {
            $box->keep($section, $xml[$section] ?? null);
        }
        foreach (['security', 'previous'] as $section) {
            if (!empty($xml[$section])) {
                $box->keep($section, $xml[$section]);
            }
        }
        if ($box->db['major'] >= 17 && !empty($xml['expired'])) {
            $box->keep('expired', $xml['expired']);
        }
    }

    /** What is new goes to the dashboard. The lists are taken as they came: a lone module is no list of modules. */
    private function notify(array $before, array $now): void
    {
        $names = fn (array $modules): array => array_map(fn ($module) => $this->field($module, 'rawname'), $modules);
        $new = array_diff(array_filter($names($now)), array_filter($names($before)));
        if ($new !== []) {
            $this->box->say('New modules are available: ' . implode(' ', $new));
        }
    }

    /** Reading a field of what is no array: PHP 8 stops there, older ones go on. */
    private function field(mixed $value, string $name): mixed
    {
        if ($this->box->db['major'] >= 17) {
            return $value[$name];
        }
        return is_string($value) ? substr($value, 0, 1) : $value[$name] ?? null;
    }

    private function readSecurity(?array $security): void
    {
        if ($security === null) {
            if ($this->box->db['major'] >= 17) {
                throw new RuntimeException('Undefined variable $security');
            }
            return;
        }
        $local = $this->box->local();
        $this->box->db['vulnerable'] = [];
        foreach ($security['issue'] as $issue) {
            $id = $this->field($issue, 'id');
            $version = is_array($issue) ? $issue['versions']["v{$this->box->db['major']}.0"] ?? [] : [];
            if (strtolower((string) ($version['vulnerable'] ?? '')) !== 'yes') {
                continue;
            }
            foreach ($version['fixes'] ?: [] as $name => $fixed) {
                $has = $local[$name]['dbversion'] ?? $local[$name]['version'] ?? null;
                if ($has !== null && compare_versions($has, trim($fixed)) < 0) {
                    $this->box->db['vulnerable'][] = "$name $id";
                }
            }
        }
    }

    /** One version of each module: the newest, or the one of edge for boxes that want that. */
    private function chosen(array $modules): array
    {
        $edge = $this->box->db['settings']['MODULEADMINEDGE'] ? $this->box->kept('edge') ?: [] : [];
        $previous = $this->box->kept('previous') ?: [];
        $final = [];
        foreach ($modules as $module) {
            $name = $module['rawname'];
            if (isset($edge[$name]) && compare_versions($module['version'], $edge[$name]['version']) < 0) {
                $module = $edge[$name];
            }
            $releases = $previous[$name]['releases']['module'] ?? [];
            $final[$name] = $module + ['previous' => isset($releases['rawname']) ? [$releases] : $releases];
        }
        return $final;
    }
}
