# Several files of the box replaced as one. Every new file lies whole and synced beside the one that it replaces, and what was
# there is kept, before the journal is written; only then is the first one renamed. Interrupted before the journal, nothing
# has changed; interrupted after it, the next run goes on: it renames the rest, or puts back what was kept.
import base64, binascii, errno, fcntl, glob, hashlib, json, os, re, shutil, signal, stat, subprocess, sys, threading, time

class Failure(Exception):
    """`status`: 1 failed, 2 wrong use, 3 refused, 4 something is missing, 5 no space, 6 network, 7 busy. `code` is what the
       mirror is told."""
    def __init__(self, status, text, step='gapferry-box --help', code=None):
        Exception.__init__(self, text)
        self.status, self.step = status, step
        self.code = code or {5: 'BOX_SPACE', 7: 'BOX_BUSY'}.get(status, 'BOX_FAILED')

def say(text):
    """On a terminal, and maybe with words of whoever answered."""
    sys.stderr.write('gapferry-box: %s\n' % shown(text))

def shown(text):
    try:
        text = u'%s' % (text,)
    except UnicodeError:  # of python 2
        text = repr(text)
    return str(re.sub(u'[^ -~]', '?', text[:2000]))

def digest_of(data):
    return hashlib.sha256(data).hexdigest()

def read_plain(path, limit):
    """The bytes of a plain file; None where there is nothing. Never follows a link, never waits for a pipe."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno == errno.ELOOP:
            raise Failure(3, '%s is a link: it is left as it is' % path, 'put a plain file there', 'LICENSE_PLACE')
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise Failure(3, '%s is no plain file: it is left as it is' % path, 'put a plain file there', 'LICENSE_PLACE')
    with os.fdopen(number, 'rb') as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Failure(3, '%s has more than %d bytes' % (path, limit), 'see what it is')
    return data

def sync_folder(folder):
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

def private_folder(path):
    """Made with its parents, for root alone."""
    if not os.path.isdir(path):
        private_folder(os.path.dirname(path))
        os.mkdir(path, 0o700)
        sync_folder(os.path.dirname(path))

def remove(path):
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise

def write_new(path, data, mode, owner=None):
    """A file that was not there, synced. @param owner  (uid, gid)"""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(number, 'wb') as file:
            if owner is not None:
                os.fchown(file.fileno(), owner[0], owner[1])
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except EnvironmentError as error:
        error.filename = error.filename or os.path.dirname(path)
        raise

class Whole(object):
    """@param home  a folder of our own, for the journal and what is kept
       @param name  tells the temporary files of this one from those of others
       @param folders  where its files are
       @param base  what paths of kept files are below"""
    def __init__(self, home, name, folders, base='/'):
        self.home, self.folders, self.base = home, folders, base
        self.journal = os.path.join(home, name + '.journal')
        self.prefix = '.gapferry-%s.' % name

    def lock(self):
        """Of the folder; kept until this process ends."""
        private_folder(self.home)
        self.held = os.open(self.home, os.O_RDONLY)
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (IOError, OSError):
            raise Failure(7, 'another gapferry-box is at work on the same files', 'wait until it has ended')

    def recover(self):
        """Ends what an earlier run began. @returns whether there was something"""
        text = read_plain(self.journal, 1 << 20)
        if text is not None:
            self._finish(json.loads(text.decode('ascii')))
        for folder in self.folders + [self.home]:
            for name in os.listdir(folder) if os.path.isdir(folder) else []:
                path = os.path.join(folder, name)
                # folders of ours are in our own alone: elsewhere somebody may exchange one while it is emptied
                if name.startswith(self.prefix) and (folder == self.home or not os.path.isdir(path) or os.path.islink(path)):
                    self._clear(path)
        return text is not None

    def replace(self, files, kept=None):
        """@param files  (path, bytes, mode, (uid, gid) or None), in the order in which they are renamed
           @param kept   a folder that is made, where there is something to keep; default: nothing is kept"""
        staged, olds = [], {}
        try:
            for path, data, mode, owner in files:
                temporary = self._beside(path)
                staged.append(temporary)
                write_new(temporary, data, mode, owner)
            if kept:
                building = self._beside(kept)
                staged.append(building)
                olds = self._keep([path for path, _, _, _ in files], building, kept)
            entries = [{'new': new, 'path': path, 'sha256': digest_of(data), 'old': olds.get(path)}
                       for new, (path, data, _, _) in zip(staged, files)]
            for folder in set(os.path.dirname(new) for new in staged):
                sync_folder(folder)
            text = json.dumps({'entries': entries, 'kept': bool(kept)}).encode('ascii')
            temporary = self._beside(self.journal)
            staged.append(temporary)
            write_new(temporary, text, 0o600)
            os.rename(temporary, self.journal)
            sync_folder(self.home)
        except BaseException:
            if not os.path.exists(self.journal):
                for path in staged:
                    self._clear(path)
            raise
        self._finish(json.loads(text.decode('ascii')))

    def _clear(self, path):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            remove(path)

    def _beside(self, path):
        name = self.prefix + binascii.hexlify(os.urandom(6)).decode('ascii')
        return os.path.join(os.path.dirname(path), name)

    def _keep(self, paths, building, kept):
        """Copies with mode and owner, which a person can put back with cp -a."""
        olds = {}
        for path in paths:
            data = read_plain(path, 1 << 22)
            if data is None:
                continue
            about = os.lstat(path)
            place = os.path.join(building, os.path.relpath(path, self.base))
            private_folder(os.path.dirname(place))
            write_new(place, data, stat.S_IMODE(about.st_mode), (about.st_uid, about.st_gid))
            sync_folder(os.path.dirname(place))
            olds[path] = os.path.join(kept, os.path.relpath(path, self.base))
        if olds:
            os.rename(building, kept)
            sync_folder(os.path.dirname(kept))
        return olds

    def _finish(self, journal):
        entries = journal['entries']
        if all(self._holds(entry['new'], entry) or self._holds(entry['path'], entry) for entry in entries):
            for entry in entries:
                if self._holds(entry['new'], entry):
                    os.rename(entry['new'], entry['path'])
        else:
            self._put_back(entries, journal['kept'])
        for folder in set(os.path.dirname(entry['path']) for entry in entries):
            sync_folder(folder)
        remove(self.journal)
        sync_folder(self.home)

    def _holds(self, path, entry):
        try:
            data = read_plain(path, 1 << 22)
        except Failure:  # somebody put a link there since
            return False
        return data is not None and digest_of(data) == entry['sha256']

    def _put_back(self, entries, was_kept):
        say('a change that was interrupted cannot be completed: what was there before is put back')
        for entry in entries if was_kept else []:
            if entry['old'] is None:
                remove(entry['path'])
                continue
            about = os.lstat(entry['old'])
            temporary = self._beside(entry['path'])
            write_new(temporary, read_plain(entry['old'], 1 << 22), stat.S_IMODE(about.st_mode), (about.st_uid, about.st_gid))
            os.rename(temporary, entry['path'])

def command(args, data=b'', seconds=60):
    """Runs a program to its end. @returns status, output, errors; status None where there is no such program"""
    try:
        process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES):
            return None, b'', b''
        raise
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        output, errors = process.communicate(data)
    finally:
        timer.cancel()
    return process.returncode, output, errors

def openssl(args, data=b''):
    status, output, errors = command(['openssl'] + args, data)
    if status is None:
        raise Failure(4, 'there is no openssl here', 'install the package openssl')
    return status, output, errors.decode('ascii', 'replace')
