<?php
// What `<depends>` asks of a box, type by type. A text in no known form asks nothing.

final class BoxDepends
{
    private const OPERATOR = '(?<op>lt|le|gt|ge|==|=|eq|!=|ne)?';
    /** of modules and extensions: two numbers at least; the letters are those of alpha, beta and rc, in any order */
    private const DOTTED = '(?<version>\d+(?:\.\d*[abcehlprt|]*\d+)+)';
    private const FREE = '(?<version>\d*[abcehlprt|]?\d+(?:\.[^.]+)*)';

    /** @var list<array{module: string, version: ?string}> */
    public array $missing = [];
    /** @var list<string> */
    private array $errors = [];

    public function __construct(private BoxState $box)
    {
    }

    /** @return list<string>  what is not met */
    public function errors(array $depends): array
    {
        foreach ($depends as $type => $texts) {
            $texts = is_array($texts) ? $texts : [$texts];
            if ($type === 'engine') {
                $this->engine($texts);
                continue;
            }
            foreach ($texts as $text) {
                match ($type) {
                    'version' => $this->number('FreePBX', $this->box->framework(), (string) $text),
                    'phpversion' => $this->number('PHP', $this->box->db['facts']['phpver'], (string) $text),
                    'phpcomponent' => $this->component((string) $text),
                    'module' => $this->module((string) $text),
                    'file' => $this->file((string) $text),
                    default => null,
                };
            }
        }
        return $this->errors;
    }

    private function number(string $what, string $has, string $text): void
    {
        if (preg_match('/^' . self::OPERATOR . '\s*' . self::FREE . '$/i', $text, $match) === 1 && !is_version($has, $match['op'], $match['version'])) {
            $this->errors[] = "$what $text is required, you have $has";
        }
    }

    private function component(string $text): void
    {
        $bad = [];
        $choices = explode('||', $text);
        foreach ($choices as $choice) {
            $form = '/^(?<name>[a-z0-9_]+|Zend (?:Optimizer|Guard Loader))(?:\s+' . self::OPERATOR . '\s*' . self::DOTTED . ')?$/i';
            if (preg_match($form, $choice, $match) !== 1) {
                continue;
            }
            $loaded = array_change_key_case($this->box->db['extensions']);
            $has = $loaded[strtolower($match['name'])] ?? null;
            if ($has === null || (isset($match['version']) && !is_version($has, $match['op'], $match['version']))) {
                $bad[] = "PHP Component $choice is required but missing from your PHP installation.";
            }
        }
        if (count($bad) === count($choices)) {
            array_push($this->errors, ...$bad);
        }
    }

    private function module(string $text): void
    {
        if (preg_match('/^(?<name>[a-z0-9_]+)(?:\s+' . self::OPERATOR . '\s*' . self::DOTTED . ')?$/i', $text, $match) !== 1) {
            return;
        }
        $name = $match['name'];
        $version = $match['version'] ?? null;
        $local = $this->box->local()[$name] ?? null;
        if ($local === null) {
            // how new it has to be is not asked here: the listed one comes
            $this->missing[] = ['module' => $name, 'version' => null];
        } elseif ($local['status'] !== BoxState::ENABLED || ($version !== null && !is_version($local['dbversion'], $match['op'], $version))) {
            $this->missing[] = ['module' => $name, 'version' => $version];
        } else {
            return;
        }
        $this->errors[] = "The Module Named \"$name\" is required ($text).";
    }

    private function file(string $text): void
    {
        $path = str_replace('%AMPWEBROOT%', '/html', $text);
        if (!file_exists($this->box->dir . $path)) {
            $this->errors[] = "The File \"$text\" must exist.";
        }
    }

    private function engine(array $texts): void
    {
        $has = $this->box->db['facts']['astver'];
        foreach ($texts as $text) {
            $form = '/^(?<name>[a-z0-9_]+)(?:\s+' . self::OPERATOR . '\s*(?<version>\d+(?:\.[^.]+)*))?$/i';
            if (preg_match($form, (string) $text, $match) === 1 && $match['name'] === 'asterisk') {
                if (!isset($match['version']) || is_version($has, $match['op'], $match['version'])) {
                    return;
                }
            }
        }
        $this->errors[] = 'Requires one of the following engines: ' . implode(', ', $texts);
    }
}
