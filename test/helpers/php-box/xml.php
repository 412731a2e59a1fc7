<?php
// XML as the box reads it: nested arrays without attributes. An element that comes once is a scalar or an array of its
// children, one that comes again turns into a list; names in lower case; an element without text is false.

final class BoxXml
{
    /** @var array<int, array{name: string, text: ?string, children: array}> */
    private array $open = [];

    /** @throws RuntimeException where the parser of PHP gives up */
    public static function parse(string $text): array
    {
        $self = new self();
        $parser = xml_parser_create();
        xml_set_element_handler($parser, $self->begin(...), $self->end(...));
        xml_set_character_data_handler($parser, $self->text(...));
        $self->open[] = ['name' => '', 'text' => null, 'children' => []];
        // Like the box, without saying that this is the last piece: what is cut off in the middle passes.
        if (xml_parse($parser, $text) !== 1) {
            $why = xml_error_string(xml_get_error_code($parser));
            throw new RuntimeException(sprintf('XML error: %s at line %d', $why, xml_get_current_line_number($parser)));
        }
        while (count($self->open) > 1) {
            $self->end($parser, '');
        }
        return self::level($self->open[0]['children']);
    }

    private function begin(XMLParser $parser, string $name, array $attributes): void
    {
        $this->open[] = ['name' => strtolower($name), 'text' => null, 'children' => []];
    }

    /** Text comes in pieces (each entity is one); what PHP takes for nothing, a lone "0" too, is dropped. */
    private function text(XMLParser $parser, string $piece): void
    {
        if (!trim($piece)) {
            return;
        }
        $top = array_key_last($this->open);
        $before = $this->open[$top]['text'];
        $this->open[$top]['text'] = $before === null ? $piece : "$before\n$piece";
    }

    private function end(XMLParser $parser, string $name): void
    {
        $element = array_pop($this->open);
        $this->open[array_key_last($this->open)]['children'][] = $element;
    }

    private static function level(array $elements): array
    {
        $found = [];
        foreach ($elements as $element) {
            $value = $element['children'] !== [] ? self::level($element['children']) : $element['text'] ?? false;
            $name = $element['name'];
            if (!array_key_exists($name, $found)) {
                $found[$name] = $value;
                continue;
            }
            if (!is_array($found[$name]) || !isset($found[$name][0])) {
                $found[$name] = [$found[$name]];
            }
            $found[$name][] = $value;
        }
        return $found;
    }
}
