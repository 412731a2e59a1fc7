# After a license was installed: FreePBX is told as `fwconsole sa update` does it, and the mirror how it went.

def home(root):
    return os.path.join(root, 'var/lib/gapferry/license')

def printable(text):
    return str(''.join(char if ' ' <= char <= '~' else '?' for char in text[:500]))

def report(root, result, off=None):
    """@returns whether the mirror has it"""
    if clock_problem(off):
        result = dict(result, clockSeconds=int(-off))
    body = json.dumps(result, sort_keys=True).encode('ascii')
    try:
        status, _, _, _ = ask_mirror(root, 'PUT', 'result', body, {'Content-Type': 'application/json'})
        return status in (200, 204)
    except Failure as failure:
        say('the mirror was not told: %s' % failure)
        return False

def finish(root, quiet, off=None):
    """Tells FreePBX of an installed license as `fwconsole sa update` does, and the mirror how it went. What could not be done
       stays to be done."""
    path, mark = [os.path.join(home(root), name) for name in ('pending', 'restart')]
    text = read_plain(path, 1 << 20)
    if text is None:
        return
    result, failed = json.loads(text.decode('ascii')), []
    if os.path.exists(mark):
        result['restarted'], failed = restart(root)
        result['info'] = info(root, quiet)
        note_result(path, result)
        remove(mark)
    if enrolled(root) is None or report(root, result, off):
        remove(path)
    if failed:
        raise Failure(1, 'the license is installed, but not restarted: %s' % ', '.join(failed), 'systemctl status %s' % failed[0])

def note_result(path, result):
    """For the run that will tell the mirror, where this one cannot. A full disk is no reason to restart again."""
    temporary = path + '.new'
    remove(temporary)
    try:
        write_new(temporary, json.dumps(result).encode('ascii'), 0o600)
        os.rename(temporary, path)
    except EnvironmentError:
        remove(temporary)

def restart(root):
    names = ['httpd', 'apache2', 'php-fpm']
    for folder in ('usr/lib/systemd/system', 'lib/systemd/system', 'etc/systemd/system'):
        found = glob.glob(os.path.join(root, folder, 'php*-fpm.service'))
        names += [os.path.basename(path)[:-len('.service')] for path in found]
    done, failed = [], []
    for unit in sorted(set(names)):
        if command(['systemctl', 'is-active', '--quiet', unit])[0] == 0:
            (done if command(['systemctl', 'restart', unit], seconds=120)[0] == 0 else failed).append(unit)
    if done:
        sys.stdout.write('restarted: %s\n' % ', '.join(done))
    elif not failed:
        say('no running web server was found: restart it yourself, so that FreePBX reads the license')
    return done, failed

def info(root, quiet):
    """What FreePBX says of its license. @returns its exit status; None without fwconsole"""
    status, output, _ = command(['fwconsole', 'sa', 'info'], seconds=120)
    if status is None:
        say('there is no fwconsole here')
    elif not quiet:
        deployment = deployment_of(root)
        sys.stdout.write('fwconsole sa info:\n')
        for line in output.decode('utf-8', 'replace').splitlines()[:200]:
            sys.stdout.write('  %s\n' % printable(line).replace(deployment, '***'))
    return status
