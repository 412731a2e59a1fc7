<?php
// The three HTTP clients of a box, in the shapes recorded from a real one: the request library (lists, archives), a HEAD
// spoken by hand, and the older client of the sound packages. Certificates and proxies play no part: the tests use http.

final class BoxNet
{
    /** @var list<array{method: string, url: string, status: int, bytes: int}> */
    public array $requests = [];

    private const REDIRECTS = 10;

    public function __construct(private int $major)
    {
    }

    /**
     * A POST that is sent again where the server points elsewhere. The status does not matter to those who ask.
     * @param array<string, mixed> $form  empty: no body
     * @return array{headers: array<string, string>, body: string}
     * @throws RuntimeException where there is no whole answer
     */
    public function post(string $url, array $form, int $timeout): array
    {
        return $this->ask('POST', $url, http_build_query($form), $timeout);
    }

    /** @return array{headers: array<string, string>, body: string} */
    public function get(string $url, int $timeout): array
    {
        return $this->ask('GET', $url, null, $timeout);
    }

    /** The sound packages' client: no name of its own, an error for every status from 400 on. */
    public function pest(string $url, array $form): string
    {
        $answer = $this->send('POST', $url, http_build_query($form), 1800, ['Expect: 100-continue'], false);
        if ($answer['status'] >= 400) {
            throw new RuntimeException("HTTP {$answer['status']}", $answer['status']);
        }
        return $answer['body'];
    }

    /** @return array<string, string>  empty where nobody answers; whatever the answer is, it counts */
    public function head(string $url): array
    {
        $parts = parse_url($url);
        $socket = @fsockopen($parts['host'] ?? '', $parts['port'] ?? 80, $number, $text, 10);
        if ($socket === false) {
            return [];
        }
        stream_set_timeout($socket, 10);
        fwrite($socket, 'HEAD ' . ($parts['path'] ?? '') . '?' . ($parts['query'] ?? '') . " HTTP/1.0\r\nHost: {$parts['host']}\r\n\r\n");
        $headers = [];
        while (!feof($socket)) {
            $line = trim((string) fgets($socket, 1024));
            if ($line === '') {
                continue;
            }
            [$name, $value] = str_contains($line, ':') ? explode(':', $line, 2) : ['status', $line];
            $headers[strtolower($name)] = trim($value);
        }
        fclose($socket);
        $status = (int) (explode(' ', $headers['status'] ?? '')[1] ?? 0);
        $this->requests[] = ['method' => 'HEAD', 'url' => $url, 'status' => $status, 'bytes' => 0];
        return $headers;
    }

    private function ask(string $method, string $url, ?string $body, int $timeout): array
    {
        $agent = 'User-Agent: php-requests/' . ($this->major >= 17 ? '2.0.5' : '1.7');
        for ($hop = 0; $hop <= self::REDIRECTS; $hop++) {
            $answer = $this->send($method, $url, $body, $timeout, [$agent, "Referer: $url", 'Connection: close', 'Expect:'], true);
            $target = $answer['headers']['location'] ?? '';
            if (!in_array($answer['status'], [301, 302, 303, 307, 308], true) || $target === '') {
                return $answer;
            }
            $parts = parse_url($url);
            $port = isset($parts['port']) ? ":{$parts['port']}" : '';
            $url = str_contains($target, '://') ? $target : "{$parts['scheme']}://{$parts['host']}$port$target";
        }
        throw new RuntimeException('Too many redirects');
    }

    /** @return array{status: int, headers: array<string, string>, body: string} */
    private function send(string $method, string $url, ?string $body, int $timeout, array $lines, bool $decodes): array
    {
        $headers = [];
        $curl = curl_init($url);
        curl_setopt_array($curl, [
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_CONNECTTIMEOUT => 10,
            CURLOPT_TIMEOUT => $timeout,
            CURLOPT_HTTP_VERSION => CURL_HTTP_VERSION_1_1,
            CURLOPT_HTTPHEADER => $lines,
            CURLOPT_HEADERFUNCTION => function ($curl, string $line) use (&$headers): int {
                $parts = explode(':', $line, 2);
                if (count($parts) === 2) {
                    $headers[strtolower(trim($parts[0]))] = trim($parts[1]);
                }
                return strlen($line);
            },
        ]);
        if ($decodes) {
            curl_setopt($curl, CURLOPT_ENCODING, 'deflate, gzip');
        }
        if ($method === 'POST') {
            curl_setopt_array($curl, [CURLOPT_POST => true, CURLOPT_POSTFIELDS => (string) $body]);
        }
        $answer = curl_exec($curl);
        $status = (int) curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
        $why = curl_error($curl);
        $this->requests[] = ['method' => $method, 'url' => $url, 'status' => $status, 'bytes' => strlen((string) $answer)];
        if ($answer === false) {
            throw new RuntimeException("cURL error: $why");
        }
        return ['status' => $status, 'headers' => $headers, 'body' => $answer];
    }
}
