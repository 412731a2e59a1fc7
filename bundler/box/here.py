# The license files that are on this box: where they may lie, and what they say of themselves.
import calendar, grp, pwd

MAX_FILES = 32
MAX_FILES_BYTES = 1 << 20
FOLDERS = ('etc/schmooze', 'etc/sangoma')
PLACE = re.compile(r'\A/(etc/(?:schmooze|sangoma))/(pbxid|[A-Za-z0-9_+,-][A-Za-z0-9._+,-]{0,100}\.zl|license[A-Za-z0-9._+,-]{0,100})\Z')
ID = re.compile(r'\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z')
LINE = re.compile(r'\A\s*([A-Za-z0-9][A-Za-z0-9_.-]{0,79})\s*[=:]\s*(\S.{0,400}?)\s*\Z')

def license_folders(root):
    """The two of the vendor, as they really are: one may be a link to the other, and neither to anywhere else."""
    allowed = [os.path.join(os.path.realpath(root), folder) for folder in FOLDERS]
    real = {}
    for folder in FOLDERS:
        found = os.path.realpath(os.path.join(root, folder))
        if found not in allowed:
            raise Failure(3, '/%s is a link to another place: licenses are not written there' % folder, 'make it a folder again', 'LICENSE_PLACE')
        real[folder] = found
    return real

def license_files(root):
    """(path on the box, bytes, stat) of all that are here"""
    found, seen = [], set()
    for folder, real in sorted(license_folders(root).items()):
        for name in sorted(os.listdir(real)) if os.path.isdir(real) else []:
            path, place = os.path.join(real, name), '/%s/%s' % (folder, name)
            if path in seen or not PLACE.match(place):
                continue
            if not stat.S_ISREG(os.lstat(path).st_mode):
                say('%s is no plain file: it is left out' % place)
                continue
            seen.add(path)
            found.append((place, read_plain(path, MAX_FILES_BYTES), os.lstat(path)))
    return sorted(found, key=lambda one: one[0])

def lines_of(data):
    for line in re.split('[\r\n]+', data.decode('latin-1')):
        found = LINE.match(line) if len(line) <= 512 else None
        if found:
            yield found.group(1), re.sub('^"(.*)"$', r'\1', found.group(2))

def ids_in(files):
    """Every deployment ID that these name. @param files  (path, bytes)"""
    named = [data.decode('latin-1').strip() for path, data in files if path.endswith('/pbxid')]
    named += [value for _, data in files for name, value in lines_of(data) if name.lower() == 'deploymentid']
    return set(str(one) for one in named if ID.match(one))

def deployment_of(root):
    files = [(path, data) for path, data, _ in license_files(root)]
    ids = ids_in([one for one in files if one[0].endswith('/pbxid')]) or ids_in(files)
    if len(ids) == 1:
        return ids.pop()
    if ids:
        raise Failure(3, 'the files of this box name several Deployment IDs', 'leave one in /etc/schmooze/pbxid')
    raise Failure(4, 'this box has no Deployment ID: it was never activated', 'put its Deployment ID into /etc/schmooze/pbxid')

def owners(root, kind):
    """{name: number}, of the box below `root`"""
    if not root.strip('/'):
        return dict((row[0], row[2]) for row in (pwd.getpwall() if kind == 'passwd' else grp.getgrall()))
    text = read_plain(os.path.join(root, 'etc', kind), 1 << 22) or b'root:x:0:0:'
    rows = [line.split(':') for line in text.decode('latin-1').splitlines()]
    return dict((row[0], int(row[2])) for row in rows if len(row) > 2 and row[2].isdigit())

def dates_in(files):
    """{name of what ends: day}, of several the last; spellings that are not understood are left out"""
    found = {}
    for _, data in files:
        for name, value in lines_of(data):
            day = day_of(value) if name.lower().endswith('_exp') else None
            if day and day > found.get(name, ''):
                found[name] = day
    return found

def day_of(text):
    text = text.split('T')[0].split(' ')[0] if re.match('[0-9]{4}-', text) else text
    if re.match(r'\A[1-9][0-9]{9}\Z', text):
        return time.strftime('%Y-%m-%d', time.gmtime(int(text)))
    for form in ('%Y-%m-%d', '%Y/%m/%d', '%Y%m%d', '%d-%b-%Y', '%d %b %Y', '%b %d, %Y', '%m/%d/%Y'):
        try:
            return time.strftime('%Y-%m-%d', time.gmtime(calendar.timegm(time.strptime(text, form))))
        except (ValueError, OverflowError):
            pass
    return None
