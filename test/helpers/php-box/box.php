<?php
// A FreePBX box as far as modules go, written for the tests from recorded requests and observed behaviour: it asks for the
// list, compares, downloads, checks, unpacks and installs, for majors 15, 16 and 17.
//   php box.php FOLDER COMMAND [ARGUMENT…]     prints one JSON document; exit status as of fwconsole
// FOLDER: box.json (settings and tables), html/admin/modules, html/admin/libraries/BMO (key files), gnupg, sounds.

declare(strict_types=1);
error_reporting(E_ALL);
set_error_handler(function (int $level, string $text, string $file, int $line): bool {
    if ((error_reporting() & $level) === 0) {
        return false;
    }
    throw new ErrorException($text, 0, $level, $file, $line);
});

foreach (['xml', 'net', 'gpg', 'state', 'online', 'depends', 'modules', 'sounds'] as $part) {
    require __DIR__ . "/$part.php";
}

const FIRST = ['framework', 'core', 'sipsettings'];

final class Box
{
    private BoxNet $net;
    private BoxOnline $online;
    private BoxModules $modules;
    private BoxSounds $sounds;
    private array $upgraded = [];

    public function __construct(private BoxState $state)
    {
        $gpg = new BoxGpg("$state->dir/gnupg", $state->keys, $state->db['masters']);
        $this->net = new BoxNet($state->db['major']);
        $this->online = new BoxOnline($state, $this->net);
        $this->modules = new BoxModules($state, $this->net, $this->online, $gpg);
        $this->sounds = new BoxSounds($state, $this->net);
    }

    /** @return array  what the command did; never throws */
    public function run(string $command, array $arguments): array
    {
        $status = 0;
        $pending = null;
        try {
            match ($command) {
                'showupgrades' => $pending = $this->online->upgrades($this->online->modules()),
                'listonline' => $this->listOnline(),
                'upgradeall' => $this->upgradeAll(),
                'installall' => $this->installAll(),
                'downloadinstall' => $this->downloadInstall(...$arguments),
                'sounds' => $this->soundPackages(...$arguments),
            };
            $pending ??= $this->online->upgrades($this->online->modules(false));
        } catch (BoxExit $end) {
            $status = $end->getCode();
        } catch (Throwable $error) {
            $this->state->say(get_class($error) . ': ' . $error->getMessage());
            $status = 1;
        }
        $this->state->save();
        return [
            'status' => $status,
            'upgraded' => $this->upgraded,
            'fetched' => (object) $this->modules->fetched,
            'pending' => (object) ($pending ?? []),
            'installed' => (object) array_map(fn (array $row): string => $row['version'], $this->state->db['modules']),
            'repo' => $this->state->db['settings']['MODULE_REPO'],
            'vulnerable' => $this->state->db['vulnerable'] ?? [],
            'signatures' => (object) ($this->state->db['signatures'] ?? []),
            'listed' => array_keys($this->listed()),
            'log' => $this->state->log,
            'requests' => $this->net->requests,
        ];
    }

    private function listed(): array
    {
        $modules = $this->state->kept('modules') ?: [];
        return array_column(isset($modules['rawname']) ? [$modules] : $modules, null, 'rawname');
    }

    private function listOnline(): void
    {
        $this->online->announcements();
        foreach ($this->online->modules() as $name => $module) {
            $this->state->say("$name {$module['version']}");
        }
    }

    private function upgradeAll(): void
    {
        $upgrades = $this->online->upgrades($this->online->modules());
        if ($upgrades === []) {
            $this->state->say('Up to date.');
            return;
        }
        $first = array_intersect_key(array_flip(FIRST), $upgrades);
        foreach (array_keys($first + $upgrades) as $name) {
            $this->upgrade($name, $upgrades[$name]);
        }
        $this->state->say('All upgrades completed successfully!');
    }

    private function installAll(): void
    {
        $this->upgradeAll();
        $wanted = $this->online->installable($this->online->modules());
        foreach (in_array('core', $wanted, true) ? array_unique(['core', ...$wanted]) : $wanted as $name) {
            $this->upgrade($name, ['from' => '', 'to' => $this->online->modules()[$name]['version']]);
        }
    }

    private function upgrade(string $name, array $versions): void
    {
        $this->state->say("Upgrading module '$name' from {$versions['from']} to {$versions['to']}");
        $this->orExit($this->modules->download($name));
        $this->modules->installProgram($name);
        $this->upgraded[] = ['rawname' => $name] + $versions;
    }

    /** @param ?string $tag  a version; without it the listed one */
    private function downloadInstall(string $what, ?string $tag = null): void
    {
        if (parse_url($what, PHP_URL_SCHEME) !== null) {
            $this->orExit($this->modules->downloadUrl($what));
            $what = (string) array_key_last($this->modules->fetched);
        } else {
            $this->orExit($tag === null ? $this->modules->download($what) : $this->modules->downloadTag($what, $tag));
        }
        $this->modules->installProgram($what);
    }

    private function soundPackages(?string $language = null): void
    {
        $this->state->say($this->sounds->list() ? 'sounds listed' : 'no sounds');
        if ($language !== null) {
            $this->sounds->install($language);
        }
    }

    private function orExit(array $errors): void
    {
        if ($errors === []) {
            return;
        }
        foreach ($errors as $error) {
            $this->state->say(" - $error");
        }
        throw new BoxExit('', 2);
    }
}

[, $folder, $command] = $argv;
$result = (new Box(new BoxState($folder)))->run($command, array_slice($argv, 3));
echo json_encode($result, JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
exit($result['status']);
