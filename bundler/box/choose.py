import os, sys
answer = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)  # whatever the manager says is talk

def say(word, text):
    try:
        text = text.decode('utf-8', 'replace') if isinstance(text, bytes) else u'%s' % text
    except UnicodeError:  # of python 2
        text = repr(text)
    text = ' '.join(text.split())
    answer.write(word + ' ' + text.encode('ascii', 'replace').decode('ascii') + '\n')

def chosen(packages):
    for name, epoch, version, release, arch in sorted(packages):
        epoch = '' if str(epoch or '0') == '0' else '%s:' % epoch
        say('chosen', '%s-%s%s-%s.%s' % (name, epoch, version, release, arch))

def with_yum(root, config):
    import yum
    from yum.constants import TS_INSTALL_STATES
    base = yum.YumBase()
    base.preconf.debuglevel = 0
    base.preconf.errorlevel = 0
    base.preconf.root = root or '/'
    if config:
        base.preconf.fn = config
    base.conf.assumeyes = True  # of a repository's key alone: nothing is carried out
    for repo in base.repos.listEnabled():
        repo.metadata_expire = 0
    base.update()
    code, messages = base.buildTransaction()
    if code == 1:
        for message in messages:
            say('failed', message)
        return
    members = base.tsInfo.getMembersWithState(output_states=TS_INSTALL_STATES)
    chosen([(one.po.name, one.po.epoch, one.po.version, one.po.release, one.po.arch) for one in members])

def with_dnf(root, config):
    import dnf, dnf.exceptions, dnf.rpm
    base = dnf.Base()
    conf = base.conf
    if root:
        conf.installroot = root
        conf.reposdir = [root + folder for folder in conf.reposdir]
        conf.varsdir = [root + folder for folder in conf.varsdir]
        for name in ('cachedir', 'logdir', 'persistdir'):
            setattr(conf, name, root + getattr(conf, name))
        if not os.path.isdir(conf.logdir):
            os.makedirs(conf.logdir)
    if config:
        conf.config_file_path = config
        conf.read()
    conf.assumeyes = True
    conf.substitutions['releasever'] = str(dnf.rpm.detect_releasever(conf.installroot) or '')
    conf.substitutions.update_from_etc('/', varsdir=conf.varsdir)
    if not root:
        base.init_plugins()
        base.pre_configure_plugins()
    base.read_all_repos()
    if not root:
        base.configure_plugins()
    for repo in base.repos.iter_enabled():
        repo._repo.expire()
    base.fill_sack(load_system_repo=True)
    base.upgrade_all()
    try:
        base.resolve()
    except dnf.exceptions.DepsolveError as error:
        return say('failed', error)
    packages = base.transaction.install_set if base.transaction else []
    chosen([(one.name, one.epoch, one.version, one.release, one.arch) for one in packages])

try:
    (with_yum if sys.argv[1] == 'yum' else with_dnf)(sys.argv[2], sys.argv[3])
    say('asked', sys.argv[1])
except Exception as error:
    say('broken', type(error).__name__)
    say('broken', error)
answer.flush()
os._exit(0)
