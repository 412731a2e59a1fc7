"""A box at the listener that boxes come to, with nothing but the standard library; runs in Python 2.7 and 3.

usage: box-client.py enrol URL NAME CODE REQUEST.PEM DIR     writes DIR/box.pem, DIR/authority.pem
       box-client.py get URL PATH DEPLOYMENT DIR [ETAG]      prints status, ETag; writes the body to DIR/answer
       box-client.py put URL PATH FILE DIR                   prints status
"""
import base64, hashlib, hmac, json, re, socket, ssl, sys

try:
    from http.client import HTTPSConnection
    from urllib.parse import urlsplit
except ImportError:
    from httplib import HTTPSConnection
    from urlparse import urlsplit


def der(pem):
    return base64.b64decode(re.search('-----BEGIN [A-Z ]+-----(.*?)-----END', pem, re.S).group(1))


def hexdigest(data):
    return hashlib.sha256(data).hexdigest()


def proof(code, *lines):
    key = code.replace('-', '').upper().encode()
    return hmac.new(key, '\n'.join(lines).encode(), hashlib.sha256).hexdigest()


def same(a, b):
    return hexdigest(a.encode()) == hexdigest(b.encode())


def read(name):
    with open(name) as file:
        return file.read()


def request(url, context, method, path, body=None, headers={}, check=None):
    connection = HTTPSConnection(urlsplit(url).hostname, urlsplit(url).port, context=context, timeout=30)
    connection.connect()
    if check:
        body = check(connection.sock.getpeercert(True))
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read()


def enrol(url, name, code, request_file, folder):
    context = ssl.SSLContext(getattr(ssl, 'PROTOCOL_TLS_CLIENT', ssl.PROTOCOL_SSLv23))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pem = read(request_file)

    def body(seen):
        lines = ('gapferry-enrol 1', name, hexdigest(der(pem)), hexdigest(seen))
        return json.dumps({'name': name, 'request': pem, 'proof': proof(code, *lines)})

    status, _, answer = request(url, context, 'POST', '/enrol', check=body, headers={'Content-Type': 'application/json'})
    if status != 200:
        print(status)
        return
    got = json.loads(answer.decode())
    expected = proof(code, 'gapferry-enrolled 1', hexdigest(der(got['certificate'])), hexdigest(der(got['authority'])))
    if not same(expected, got['proof']):
        raise SystemExit('the answer is not by the mirror')
    for file in ('certificate', 'authority'):
        with open('%s/%s.pem' % (folder, {'certificate': 'box'}.get(file, file)), 'w') as out:
            out.write(got[file])
    print(status)


def context_of(folder):
    context = ssl.create_default_context(cafile=folder + '/authority.pem')
    context.load_cert_chain(folder + '/box.pem', folder + '/box.key')
    return context


def get(url, path, deployment, folder, etag=None):
    headers = {'Gapferry-Deployment': deployment} if deployment else {}
    if etag:
        headers['If-None-Match'] = etag
    status, fields, body = request(url, context_of(folder), 'GET', path, headers=headers)
    with open(folder + '/answer', 'wb') as out:
        out.write(body)
    print('%d %s' % (status, fields.get('etag', '-')))


def put(url, path, file, folder):
    with open(file, 'rb') as source:
        status, _, _ = request(url, context_of(folder), 'PUT', path, source.read())
    print(status)


{'enrol': enrol, 'get': get, 'put': put}[sys.argv[1]](*sys.argv[2:])
