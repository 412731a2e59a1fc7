<?php
// The module of sound packages: it has a client of its own, and puts the address of the mirror back to the vendor's when
// anything goes wrong with it.

final class BoxSounds
{
    public function __construct(private BoxState $box, private BoxNet $net)
    {
    }

    /** Brings the list up to date. False where there is none. */
    public function list(): bool
    {
        $sounds = simplexml_load_string($this->remote("/sounds-{$this->box->db['major']}.0.xml"), options: LIBXML_NOERROR);
        $packages = json_decode(json_encode($sounds === false ? [] : $sounds), true)['sounds']['package'] ?? [];
        if (empty($packages)) {
            return false;
        }
        $installed = $this->installed();
        $next = $installed;
        foreach ($packages as $package) {
            // A lone package is no list of packages: its fields are taken for packages, and PHP stops.
            $key = "{$package['type']}-{$package['module']}-{$package['language']}-{$package['format']}";
            $next[$key] = ['installed' => $installed[$key]['installed'] ?? null] + $package;
        }
        $this->box->db['sound_packages'] = $next;
        return true;
    }

    /** Licence and archive of every package of the language that is listed newer than what is here. */
    public function install(string $language): void
    {
        foreach ($this->box->db['sound_packages'] as $key => $package) {
            $isNew = $package['installed'] === null || version_compare($package['version'], $package['installed'], 'gt');
            if ($package['language'] !== $language || !$isNew || !in_array($package['format'], $this->box->db['formats'], true)) {
                continue;
            }
            $stem = "{$package['type']}-{$package['module']}-{$package['language']}";
            $this->remote("/sounds/$stem-license.txt");
            $name = "$stem-{$package['format']}-{$package['version']}.tar.gz";
            $folder = "{$this->box->dir}/sounds";
            is_dir($folder) || mkdir($folder);
            file_put_contents("$folder/$name", $this->remote("/sounds/$name"));
            $to = "$folder/$language";
            (new PharData("$folder/$name"))->extractTo($to, null, true);
            if (!is_file("$to/{$package['module']}-$language.txt")) {
                throw new RuntimeException("Couldn't find {$package['module']}-$language.txt - not in archive $name?");
            }
            $this->box->db['sound_packages'][$key]['installed'] = $package['version'];
        }
    }

    private function installed(): array
    {
        return array_filter($this->box->db['sound_packages'], fn (array $one): bool => $one['installed'] !== null);
    }

    private function remote(string $path): string
    {
        $settings = &$this->box->db['settings'];
        $form = $this->box->form(false) + ['sv' => 2, 'soundlangver' => 2, 'canredirect' => 1];
        $failure = null;
        foreach (explode(',', $settings['MODULE_REPO']) as $mirror) {
            try {
                $body = $this->net->pest($mirror . $path, $form);
                if (!empty($body)) {
                    return $body;
                }
            } catch (RuntimeException $error) {
                $failure = $error;
            }
        }
        if ($failure === null) {
            throw new RuntimeException('Unknown Error. Response was empty');
        }
        if ($settings['MODULE_REPO'] !== $this->box->db['defaults']['MODULE_REPO']) {
            $settings['MODULE_REPO'] = $this->box->db['defaults']['MODULE_REPO'];
            throw new RuntimeException('The mirror server did not return the correct response and had been previously changed; it has been reset');
        }
        throw $failure;
    }
}
