# The license files of this box as an archive for the laptop, while it is activated. FORMAT.md#captured-license of Gapferry.

def capture(root, box):
    out = getattr(sys.stdout, 'buffer', sys.stdout)
    if sys.stdout.isatty():
        raise Failure(2, 'capture writes an archive, which is nothing for a terminal', 'gapferry-box capture > %s.license.tar' % box)
    files = license_files(root)
    if not [path for path, _, _ in files if not path.endswith('/pbxid')]:
        raise Failure(4, 'no license file is here, in /etc/schmooze or /etc/sangoma', 'activate this box while it is online, then: gapferry-box capture')
    if len(files) > MAX_FILES or sum(len(data) for _, data, _ in files) > MAX_FILES_BYTES:
        raise Failure(3, 'there are more than %d license files, or more than %d bytes of them' % (MAX_FILES, MAX_FILES_BYTES), 'remove old ones')
    entries = [('gapferry-license', capture_head(root, box, files))] + [(path[1:], data) for path, data, _ in files]
    for name, data in entries:
        out.write(tar_header(name, len(data)) + data + b'\0' * (-len(data) % 512))
    out.write(b'\0' * 1024)
    out.flush()
    say('%d files captured. The archive holds the license in the clear: bring it to the laptop, and delete it' % len(files))

def capture_head(root, box, files):
    users, groups = [dict((number, name) for name, number in owners(root, kind).items()) for kind in ('passwd', 'group')]
    lines = ['gapferry-license 1', 'box ' + box, 'deployment ' + deployment_of(root),
             'captured ' + time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), 'tool ' + os.environ['GAPFERRY_TOOL']]
    for name, path in (('machine', 'etc/machine-id'), ('board', 'sys/class/dmi/id/product_uuid')):
        try:
            fact = read_plain(os.path.join(root, path), 4096)
        except EnvironmentError:
            fact = None
        if fact:
            lines.append('%s %s' % (name, digest_of(fact.splitlines()[0].strip())))
    for path, data, about in files:
        names = users.get(about.st_uid, 'root'), groups.get(about.st_gid, 'root')
        lines.append('file %04o %s %s %d %s %s' % ((stat.S_IMODE(about.st_mode) & 0o777,) + names + (len(data), digest_of(data), path)))
    lines.append('end %d' % len(lines))
    return ('\n'.join(lines) + '\n').encode('ascii')

def tar_header(name, size):
    fields = (name.encode('ascii').ljust(100, b'\0'), b'000644 \0', b'000000 \0', b'000000 \0', ('%011o ' % size).encode('ascii'),
              b'00000000000 ', b' ' * 8, b'0', b'\0' * 100, b'ustar\x0000', b'\0' * 64, b'000000 \0', b'000000 \0', b'\0' * 167)
    header = b''.join(fields)
    total = ('%06o \0' % sum(bytearray(header))).encode('ascii')
    return header[:148] + total + header[156:]
