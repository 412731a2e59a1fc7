# The key and the certificates of this box: made known to a mirror with a one-time code, or made for itself. While enrolling
# there is nobody to believe yet: both sides prove that they know the code and that they see the same certificate.
# FORMAT.md#enrolment of Gapferry.

PEM = re.compile(r'\A-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n?\Z')
BOX_NAME = re.compile(r'\A[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z')
OPENSSL_CONFIG = b'[req]\ndistinguished_name = name\nx509_extensions = box\n[name]\n[box]\nkeyUsage = critical, digitalSignature, keyAgreement\n'

def keys_of(root):
    keys = Whole(own_folder(root), 'keys', [own_folder(root)])
    keys.lock()
    keys.recover()
    return keys

def new_key():
    status, key, _ = openssl(['ecparam', '-name', 'prime256v1', '-genkey', '-noout'])
    if status != 0:
        raise Failure(1, 'openssl made no key', 'openssl ecparam -name prime256v1 -genkey')
    return key

def with_key(work, args):
    """What `openssl req` makes of these, in PEM. @param work  a folder with box.key and a configuration"""
    status, output, errors = openssl(['req', '-new', '-sha256', '-key', os.path.join(work, 'box.key'),
                                      '-config', os.path.join(work, 'openssl.cnf')] + args)
    if status != 0:
        raise Failure(1, 'openssl made no request: %s' % errors.strip(), 'openssl version')
    return output

def work_folder(keys, key):
    work = keys._beside(keys.journal)
    os.mkdir(work, 0o700)
    write_new(os.path.join(work, 'box.key'), key, 0o600)
    write_new(os.path.join(work, 'openssl.cnf'), OPENSSL_CONFIG, 0o600)
    return work

def enrol(root, url, box):
    code = os.environ.pop('GAPFERRY_CODE')
    parse_url(url)
    if not BOX_NAME.match(box):
        raise Failure(2, '"%s" is no name of a box: letters, digits, ".", "_", "-"' % box, '--box NAME')
    keys = keys_of(root)
    key = new_key()
    work = work_folder(keys, key)
    try:
        request = with_key(work, ['-subj', '/CN=' + box])
        certificate, authority, off = patiently(lambda: exchange(url, box, code, request))
        check_certificate(work, request, certificate, authority, url)
    finally:
        shutil.rmtree(work)
    lines = 'mirror %s\nbox %s\n' % (url.rstrip('/'), box)
    keys.replace([(own(root, 'box.key'), key, 0o600, None),
                  (own(root, 'box.pem'), certificate, 0o644, None),
                  (own(root, 'authority.pem'), authority, 0o644, None),
                  (own(root, 'enrolled'), lines.encode('ascii'), 0o644, None)])
    tell_clock(off)
    sys.stdout.write('enrolled as %s at %s\n' % (box, url.rstrip('/')))

def exchange(url, box, code, request):
    """@returns certificate and authority, PEM, which only a mirror that knows the code can have sent, and seconds_off"""
    secret = code.replace('-', '').upper().encode('ascii')
    try:
        connection = Connection(url)
        own_proof = proof(secret, 'gapferry-enrol 1', box, digest_of(der_of(request, 'CERTIFICATE REQUEST')), digest_of(connection.certificate))
        body = json.dumps({'name': box, 'request': request.decode('ascii'), 'proof': own_proof})
        status, answer, data = connection.ask('POST', '/enrol', body, {'Content-Type': 'application/json'})
    except (socket.error, http_client.HTTPException) as error:
        raise why_not(url, error)
    off = seconds_off(answer)
    if status != 200:
        problem = clock_problem(off)
        raise Failure(3, 'the mirror does not accept this: the code is wrong, used or too old, or it is not for a box of the name "%s"%s' % (
            box, '; ' + problem if problem else ''), 'on the mirror: gapferry-mirror boxes enrol %s' % box)
    certificate, authority = parse_answer(data, secret)
    return certificate, authority, off

def proof(secret, *lines):
    return hmac.new(secret, '\n'.join(lines).encode('ascii'), hashlib.sha256).hexdigest()

def parse_answer(data, secret):
    no_mirror = Failure(3, 'the answer is not by a mirror that knows this code: another machine may stand in between; nothing was kept',
                        'compare the address with that on the mirror; ask for a new code')
    try:
        answer = json.loads(data.decode('ascii'))
        given = [str(answer[name]) for name in ('certificate', 'authority', 'proof')]
    except (ValueError, KeyError, TypeError):
        raise no_mirror
    pems = [pem.encode('ascii') for pem in given[:2] if len(pem) <= MAX_CERTIFICATE_BYTES and PEM.match(pem)]
    if len(pems) != 2:
        raise no_mirror
    wanted = proof(secret, 'gapferry-enrolled 1', digest_of(der_of(pems[0])), digest_of(der_of(pems[1])))
    if not is_same(wanted, given[2]):
        raise no_mirror
    return pems

def is_same(one, other):
    if len(one) != len(other):
        return False
    different = 0
    for a, b in zip(bytearray(one.encode('ascii')), bytearray(other.encode('ascii', 'replace'))):
        different |= a ^ b
    return different == 0

def der_of(pem, what='CERTIFICATE'):
    text = pem.decode('ascii')
    return base64.b64decode(text.split('-----BEGIN %s-----' % what)[1].split('-----END')[0].encode('ascii'))

def check_certificate(work, request, certificate, authority, url):
    """It is for our key, and the mirror takes it: shown by the connection that the box will make from now on."""
    for name, data in (('box.pem', certificate), ('authority.pem', authority)):
        write_new(os.path.join(work, name), data, 0o600)
    public = [openssl([kind, '-noout', '-pubkey'], data)[1] for kind, data in (('x509', certificate), ('req', request))]
    if public[0] != public[1]:
        raise Failure(3, 'the mirror\'s answer is for another key: an old answer, or another box\'s; nothing was kept', 'ask for a new code')
    try:
        patiently(lambda: Connection(url, work).ask('GET', '/'))
    except (socket.error, http_client.HTTPException) as error:
        raise why_not(url, error, os.path.join(work, 'authority.pem'))

def key(root, box):
    """A key and a certificate by itself, for licenses where there is no mirror; what is there already is only shown."""
    keys = keys_of(root)
    certificate = read_plain(own(root, 'box.pem'), MAX_CERTIFICATE_BYTES)
    if certificate is None or not os.path.exists(own(root, 'box.key')):
        if not BOX_NAME.match(box):
            raise Failure(2, '"%s" is no name of a box: letters, digits, ".", "_", "-"' % box, '--box NAME')
        secret = new_key()
        work = work_folder(keys, secret)
        try:
            certificate = with_key(work, ['-x509', '-days', '7300', '-subj', '/CN=' + box])
        finally:
            shutil.rmtree(work)
        keys.replace([(own(root, 'box.key'), secret, 0o600, None), (own(root, 'box.pem'), certificate, 0o644, None)])
