# The license of this box: opened, checked, installed. FORMAT.md#licenses of Gapferry. Its text and the deployment ID go into
# the files that FreePBX reads, into copies of these in /var/lib/gapferry, and nowhere else: no argument, no message, no
# temporary file that stays.

MAX_DOCUMENT_BYTES = 2 << 20
KEPT = 3
DOCUMENT = {'_type', 'format', 'site', 'deploymentId', 'product', 'files', 'expires', 'host', 'capturedAt'}
FILE = {'path', 'mode', 'owner', 'group', 'sha256', 'data'}

def opens(root, path):
    """What is sealed in a file for this box's key; None where it is sealed for others only."""
    sealed = read_plain(path, MAX_SEALED_BYTES)
    if sealed is None:
        raise Failure(4, '%s is not here' % path, 'name the file that was brought')
    return opened(root, sealed)

def opened(root, sealed):
    if not os.path.exists(own(root, 'box.key')) or not os.path.exists(own(root, 'box.pem')):
        raise Failure(4, 'this box has no key that a license could be sealed for', 'gapferry-box enrol or gapferry-box key')
    status, data, _ = openssl(['cms', '-decrypt', '-inform', 'DER', '-recip', own(root, 'box.pem'), '-inkey', own(root, 'box.key')], sealed)
    return data if status == 0 else None

def refused(why, code='LICENSE_INVALID'):
    return Failure(3, 'the license is refused: %s' % why, 'gapferry-mirror boxes show NAME, at the mirror; or gapferry license list, on the laptop', code)

def once(pairs):
    if len(set(name for name, _ in pairs)) != len(pairs):
        raise ValueError('a name comes twice')
    return dict(pairs)

def parse_license(data, site, deployment):
    """The checked document. @param site  None: any"""
    try:
        doc = json.loads(data.decode('utf-8'), object_pairs_hook=once) if len(data) <= MAX_DOCUMENT_BYTES else None
    except (ValueError, RuntimeError):  # not JSON, or too deep; its text would quote the license
        doc = None
    if not isinstance(doc, dict) or set(doc) != DOCUMENT or doc['_type'] != 'gapferry-license' or doc['format'] != 1:
        raise refused('it is no license document of format 1')
    if site and doc['site'] != site:
        raise refused('it is for another site than %s' % site, 'LICENSE_SITE')
    if doc['deploymentId'] != deployment:
        raise refused('it is for another deployment than this box', 'LICENSE_DEPLOYMENT')
    files = doc['files']
    if not isinstance(files, list) or not 0 < len(files) <= MAX_FILES:
        raise refused('it has no files, or more than %d' % MAX_FILES)
    doc['files'] = [parse_file(one) for one in files]
    if sum(len(one['data']) for one in doc['files']) > MAX_FILES_BYTES:
        raise refused('its files have more than %d bytes' % MAX_FILES_BYTES)
    if ids_in([(one['path'], one['data']) for one in doc['files']]) - set([deployment]):
        raise refused('one of its files is for another deployment than this box', 'LICENSE_DEPLOYMENT')
    return doc

def parse_file(file):
    if not isinstance(file, dict) or set(file) != FILE or not all(isinstance(value, type(u'')) for value in file.values()):
        raise refused('one of its files is not as it must be')
    file = dict((str(name), str(value.encode('ascii', 'replace').decode('ascii'))) for name, value in file.items())
    if not PLACE.match(file['path']):
        raise refused('one of its files is for a place where no license lies')
    if not re.match(r'\A0[0-7]{3}\Z', file['mode']):
        raise refused('%s has no proper mode' % file['path'])
    try:
        file['data'] = base64.b64decode(file['data'])
    except (TypeError, ValueError):
        raise refused('%s is not base64' % file['path'])
    if digest_of(file['data']) != file['sha256']:
        raise refused('%s is not what its digest says' % file['path'])
    return file

class Installation(object):
    """The license files of one box, and what is known of them: `installed` in our folder."""
    def __init__(self, root):
        self.root, self.home = root, home(root)
        self.folders = license_folders(root)
        self.whole = Whole(self.home, 'license', list(self.folders.values()), os.path.realpath(root))
        self.whole.lock()
        if self.whole.recover():
            say('an interrupted installation of a license was completed')

    def note(self, name):
        text = read_plain(os.path.join(self.home, name), 1 << 20)
        return json.loads(text.decode('ascii')) if text else {}

    def real(self, path):
        folder, name = PLACE.match(path).groups()
        return os.path.join(self.folders[folder], name)

    def is_ours(self):
        """Whether the files still are those that were installed last."""
        return all(self.digest(path) == digest for path, digest in self.note('installed').get('files', {}).items())

    def digest(self, path):
        data = read_plain(self.real(path), MAX_FILES_BYTES)
        return None if data is None else digest_of(data)

    def install(self, data, site, force):
        """@returns the document where something changed, else None"""
        known = self.note('installed')
        doc = parse_license(data, site or known.get('site'), deployment_of(self.root))
        same = all(self.digest(one['path']) == one['sha256'] for one in doc['files'])
        if same and known.get('content') == digest_of(data):
            return None
        if not same and not force and not (known and self.is_ours()):
            self.refuse_older(doc)
        targets = [self.real(one['path']) for one in doc['files']]
        if len(set(targets)) != len(targets):
            raise refused('two of its files are for one place')
        files = [(target, one['data'], int(one['mode'], 8) & 0o664, self.owner(one)) for target, one in zip(targets, doc['files'])]
        self.make_folders()
        self.whole.replace(files + self.notes(doc, digest_of(data), same), None if same else self.place_for_old())
        self.drop_old()
        return doc

    def refuse_older(self, doc):
        """What somebody else put here, online perhaps, is not replaced by what ends earlier."""
        here = dates_in([(path, data) for path, data, _ in license_files(self.root)])
        new = dates_in([(one['path'], one['data']) for one in doc['files']])
        both = [name for name in new if name in here]
        if both and all(new[name] <= here[name] for name in both) and any(new[name] < here[name] for name in both):
            raise Failure(3, 'the license that is here is newer than the one that was brought: it stays',
                          'gapferry-box license --force, to go back', 'LICENSE_OLDER')

    def owner(self, file):
        users, groups = owners(self.root, 'passwd'), owners(self.root, 'group')
        for name, known in ((file['owner'], users), (file['group'], groups)):
            if name not in known:
                raise refused('%s is for "%s", whom this box does not know' % (file['path'], name[:32]), 'LICENSE_OWNER')
        return users[file['owner']], groups[file['group']]

    def notes(self, doc, content, same):
        """What is known of it, and that FreePBX is still to be told: replaced together with the files."""
        about = {'content': content, 'site': doc['site'], 'files': dict((one['path'], one['sha256']) for one in doc['files'])}
        dates = sorted(dates_in([(one['path'], one['data']) for one in doc['files']]).items())
        result = {'result': 'installed', 'license': content, 'expires': [{'name': name, 'date': day} for name, day in dates[:200]]}
        notes = [('installed', about), ('pending', result)] + ([] if same else [('restart', {})])
        return [(os.path.join(self.home, name), json.dumps(value).encode('ascii'), 0o600, None) for name, value in notes]

    def make_folders(self):
        for folder in self.folders.values():
            if not os.path.isdir(folder):
                os.mkdir(folder, 0o755)
                os.chmod(folder, 0o755)
                sync_folder(os.path.dirname(folder))

    def place_for_old(self):
        stamp = time.strftime('before-%Y%m%dT%H%M%SZ', time.gmtime())
        names = [stamp] + ['%s-%d' % (stamp, count) for count in range(2, 100)]
        return [path for path in (os.path.join(self.home, name) for name in names) if not os.path.exists(path)][0]

    def drop_old(self):
        olds = sorted(name for name in os.listdir(self.home) if name.startswith('before-'))
        for name in olds[:-KEPT]:
            shutil.rmtree(os.path.join(self.home, name))

def install(root, path, site, force):
    def work():
        here = Installation(root)
        data = opens(root, path)
        if data is None:
            raise refused('it is sealed for another key, or it was changed', 'LICENSE_SEALED')
        tell(here.install(data, site, force))
    finished(root, work, False)

def fetch(root, quiet, force):
    """@param quiet  for keep: only what is new is said"""
    if os.path.isdir(own_folder(root)):
        keys_of(root)  # ends an enrolment that was interrupted
    if enrolled(root) is None:
        raise NOT_ENROLLED
    try:
        finished(root, lambda: fetch_only(root, quiet, force), quiet)
    except Failure as failure:
        if quiet and failure.status == 6:
            sys.exit(6)  # keep says it of the inventory, once
        raise

def finished(root, work, quiet):
    """What an earlier run left to be done is done, whatever becomes of this one. @param work  may give the clock's seconds_off"""
    try:
        off = work()
    except Failure as failure:
        if failure.status != 7:
            finish(root, quiet)
        raise
    finish(root, quiet, off)

def tell(doc):
    if doc is None:
        return
    product = printable(doc['product'] if isinstance(doc['product'], type(u'')) else 'a product that is not named')
    count = len(doc['files'])
    sys.stdout.write('license installed: %d file%s, for %s\n' % (count, '' if count == 1 else 's', product))
    for name, day in sorted(dates_in([(one['path'], one['data']) for one in doc['files']]).items()):
        sys.stdout.write('  %s %s\n' % (name, day))

def fetch_only(root, quiet, force):
    here = Installation(root)
    known = here.note('installed').get('content') if here.is_ours() else None
    before = here.note('refused').get('content') if quiet else None
    try:
        headers = {'Gapferry-Deployment': deployment_of(root)}
    except Failure as failure:
        if quiet and failure.status == 4:
            return None
        raise
    if (before or known) and not force:
        headers['If-None-Match'] = '"%s"' % (before or known)
    status, answer, sealed, off = ask_mirror(root, 'GET', 'license', None, headers, MAX_SEALED_BYTES)
    if status == 304:
        if not quiet:
            sys.stdout.write('the license is the one that the mirror has\n')
        return off
    if status == 404:
        if quiet:
            return None
        raise Failure(4, 'the mirror has no license for this box, or does not take it for the box that was enrolled',
                      'gapferry-mirror boxes list, on the mirror')
    if status != 200:
        raise Failure(6, 'the mirror answers %d' % status, 'try it again; see the mirror\'s log')
    content = (answer.getheader('ETag') or '').strip('"')
    try:
        data = opened(root, sealed)
        if data is None or digest_of(data) != content:
            raise refused('it does not open with the key of this box, or it is not what the mirror says', 'LICENSE_SEALED')
        doc = here.install(data, None, force)
    except Failure as failure:
        return not_installed(root, here, content, failure, off)
    remove(os.path.join(here.home, 'refused'))
    if doc is None and not quiet:
        sys.stdout.write('the license is the one that the mirror has\n')
    tell(doc)
    return off

def not_installed(root, here, content, failure, off):
    """The mirror hears why, once."""
    result = {'result': 'refused' if failure.status == 3 else 'failed', 'code': failure.code}
    report(root, dict(result, license=content) if re.match('[0-9a-f]{64}$', content) else result, off)
    if failure.status == 3:
        path = os.path.join(here.home, 'refused')
        remove(path)
        write_new(path, json.dumps({'content': content[:64]}).encode('ascii'), 0o600)
    raise failure

WORK = {
    'capture': capture, 'enrol': enrol, 'key': key, 'install': install, 'fetch': fetch, 'put': put,
    'opens': lambda root, path: sys.exit(0 if opens(root, path) is not None else 3),
}

def main(mode, root, arguments):
    os.umask(0o077)
    try:
        WORK[mode](root or '/', *arguments)
    except EnvironmentError as error:
        what = error.filename or 'this box'
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Failure(5, 'no space left in %s: nothing was changed' % what, 'df -h')
        raise Failure(1, '%s: %s' % (what, error.strerror or error), 'see what is wrong there')
    finally:
        sys.stdout.flush()

if __name__ == '__main__':
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3:])
    except (ValueError, LookupError, TypeError) as error:  # their texts may quote what is secret
        sys.stderr.write('gapferry-box: something is not as it must be (%s)\n  next: gapferry-box --help\n' % type(error).__name__)
        sys.exit(1)
    except Failure as failure:
        say(failure)
        sys.stderr.write('  next: %s\n' % shown(failure.step))
        sys.exit(failure.status)
