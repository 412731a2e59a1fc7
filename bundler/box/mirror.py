# What a box and the boxes' listener of its mirror say to each other: FORMAT.md#enrolment of Gapferry. TLS is pinned to the
# authority that enrolling brought; the name or address is compared here, as no python 2.7 of CentOS 7 is sure to do it.
import email.utils, hmac, socket, ssl
try:
    import http.client as http_client
except ImportError:  # of python 2
    import httplib as http_client

CONNECT_SECONDS = 20
IN_ALL_SECONDS = 180
MAX_CLOCK_SECONDS = 300
MAX_CERTIFICATE_BYTES = 16384
MAX_SEALED_BYTES = 4 << 20
MAX_INVENTORY_BYTES = 4 << 20
NOT_ENROLLED = Failure(4, 'this box is not enrolled at a mirror', 'gapferry-box enrol https://MIRROR:PORT --code CODE')

def own_folder(root):
    return os.path.join(root, 'etc/gapferry')

def own(root, name):
    return os.path.join(own_folder(root), name)

def parse_url(url):
    found = re.match(r'\Ahttps://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})/?\Z', url)
    if not found:
        raise Failure(2, '"%s" is not the boxes\' address of a mirror' % url, 'https://MIRROR:PORT, as boxes enrol on the mirror shows it')
    return found.group(1).strip('[]').lower(), int(found.group(2))

def as_address(text):
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, text.strip())
        except (socket.error, ValueError):
            pass
    return None

def is_named(certificate, host):
    """Whether the certificate, as getpeercert() gives it, is for this host name or address."""
    address = as_address(host)
    return any(kind == 'DNS' and name.lower() == host or kind == 'IP Address' and address and as_address(name) == address
               for kind, name in certificate.get('subjectAltName', ()))

class Connection(object):
    """One request. @param own  the folder with authority.pem, box.pem and box.key; None: whoever answers is only looked at"""
    def __init__(self, url, own=None):
        self.host, port = parse_url(url)
        context = ssl.SSLContext(getattr(ssl, 'PROTOCOL_TLS_CLIENT', ssl.PROTOCOL_SSLv23))
        if hasattr(context, 'check_hostname'):
            context.check_hostname = False
        for name in ('OP_NO_SSLv2', 'OP_NO_SSLv3', 'OP_NO_TLSv1', 'OP_NO_TLSv1_1'):
            context.options |= getattr(ssl, name, 0)
        context.verify_mode = ssl.CERT_REQUIRED if own else ssl.CERT_NONE
        if own:
            try:
                context.load_verify_locations(os.path.join(own, 'authority.pem'))
                context.load_cert_chain(os.path.join(own, 'box.pem'), os.path.join(own, 'box.key'))
            except EnvironmentError:
                raise Failure(4, 'authority.pem, box.pem or box.key in /etc/gapferry is missing or damaged', 'gapferry-box enrol https://MIRROR:PORT --code CODE')
        plain = socket.create_connection((self.host, port), CONNECT_SECONDS)
        is_name = as_address(self.host) is None and getattr(ssl, 'HAS_SNI', False)
        self.tls = context.wrap_socket(plain, server_hostname=self.host if is_name else None)
        self.certificate = self.tls.getpeercert(True)
        if own and not is_named(self.tls.getpeercert(), self.host):
            names = ', '.join(name.strip() for _, name in self.tls.getpeercert().get('subjectAltName', ()))
            raise Failure(3, 'the mirror\'s certificate is for %s, not for %s' % (names or 'nothing', self.host),
                          'name it under boxes: hosts: in mirror.yaml, and start the mirror again')
        self.http = http_client.HTTPConnection(self.host, port)
        self.http.sock = self.tls

    def ask(self, method, path, body=None, headers=None, limit=1 << 16):
        """@returns status, headers, bytes"""
        self.http.request(method, path, body, dict(headers or {}, Connection='close'))
        answer = self.http.getresponse()
        data = answer.read(limit + 1)
        if len(data) > limit:
            raise Failure(3, 'the mirror\'s answer has more than %d bytes' % limit, 'see what answers at that address')
        self.http.close()
        return answer.status, answer, data

def seconds_off(answer):
    """How far the mirror's clock is ahead of this box's; None where it does not tell."""
    parsed = email.utils.parsedate_tz(answer.getheader('Date') or '')
    return None if parsed is None else email.utils.mktime_tz(parsed) - time.time()

def clock_problem(off):
    if off is None or abs(off) <= MAX_CLOCK_SECONDS:
        return None
    at = [time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(time.time() + plus)) for plus in (0, off)]
    return 'the clocks differ by %s: it is %s here and %s at the mirror' % (as_span(abs(off)), at[0], at[1])

TOLD = []

def tell_clock(off):
    """Once in a run."""
    problem = clock_problem(off)
    if problem and not TOLD:
        TOLD.append(problem)
        say(problem + ': set the one that is wrong')

def as_span(seconds):
    for unit, name in ((86400, 'days'), (3600, 'hours'), (60, 'minutes')):
        if seconds >= 2 * unit:
            return '%d %s' % (seconds // unit, name)
    return '%d seconds' % seconds

def why_not(url, error, authority=None):
    """The failure that stands behind one of TLS: looked for with a connection that believes nothing."""
    step = 'see that the mirror serves, and that %s leads there' % url
    try:
        seen = Connection(url)
        _, answer, _ = seen.ask('GET', '/')
        problem = clock_problem(seconds_off(answer))
    except (socket.error, http_client.HTTPException) as other:
        return Failure(6, '%s: %s' % (url, other), step)
    reason = authority and untrusted(authority, ssl.DER_cert_to_PEM_cert(seen.certificate))
    if problem:
        return Failure(3, problem + (' (%s)' % reason if reason else ''), 'set the clock that is wrong: date -u')
    if reason:
        return Failure(3, '%s: %s' % (url, reason), 'see what answers there; a mirror made anew has another authority: enrol again')
    return Failure(6, '%s: %s' % (url, error), step)

def untrusted(authority, certificate):
    """Why the authority does not vouch for it; None where it does."""
    status, output, errors = openssl(['verify', '-CAfile', authority], certificate.encode('ascii'))
    code = re.search(r'error ([0-9]+) at', output.decode('ascii', 'replace') + errors)
    if status == 0 and not code:
        return None
    return {'9': 'its certificate is not valid yet by the clock of this box',
            '10': 'its certificate is no longer valid by the clock of this box',
            }.get(code and code.group(1), 'its certificate is not of the authority that this box was enrolled with')

def patiently(work):
    """Ends what takes too long, whoever keeps it busy."""
    def too_long(*_):
        raise Failure(6, 'the mirror took more than %d seconds' % IN_ALL_SECONDS, 'try it again')
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(IN_ALL_SECONDS)
    try:
        return work()
    finally:
        signal.alarm(0)

def enrolled(root):
    """(address of the mirror, name of the box); None where the box is not enrolled."""
    text = read_plain(own(root, 'enrolled'), 4096)
    if text is None:
        return None
    lines = dict(str(line).split(' ', 1) for line in text.decode('ascii').splitlines() if ' ' in line)
    return lines.get('mirror', ''), lines.get('box', '')

def ask_mirror(root, method, name, body=None, headers=None, limit=1 << 16):
    """One request as this box. @param name  below /boxes/NAME/
       @returns status, headers, bytes, seconds that the mirror's clock is ahead"""
    found = enrolled(root)
    if found is None:
        raise NOT_ENROLLED
    url, box = found
    def work():
        try:
            connection = Connection(url, own_folder(root))
            return connection.ask(method, '/boxes/%s/%s' % (box, name), body, headers, limit)
        except (socket.error, http_client.HTTPException) as error:
            raise why_not(url, error, own(root, 'authority.pem'))
    status, answer, data = patiently(work)
    off = seconds_off(answer)
    tell_clock(off)
    return status, answer, data, off

def put(root, name, path):
    """Sends what is in a file: the inventory, as keep does. @returns the exit status"""
    data = read_plain(path, MAX_INVENTORY_BYTES)
    status, _, _, _ = ask_mirror(root, 'PUT', name, data or b'', {'Content-Type': 'application/octet-stream'})
    if status not in (200, 204):
        raise Failure(6, 'the mirror does not take the %s (%d)' % (name, status), 'gapferry-mirror boxes list, on the mirror')
