import type { BoxFile } from './box.ts'

/** The query of a mirrorlist line in the vendor's own files. */
export function vendorMirrorlist(repo: string): string {
  return `http://mirrorlist.sangoma.net/?release=$releasever&arch=$basearch&repo=${repo}&dist=$dist&staging=$staging`
}

interface VendorRepository {
  id: string
  name: string
  repo?: string
  baseurl?: string
  isOff?: boolean
  isChecked?: boolean
}

/** `/etc/yum.repos.d` of an SNG7 box by file name, as the vendor's package installs it. */
export function vendorRepoFiles(): Record<string, string> {
  const core: VendorRepository[] = [
    { id: 'sng-base', name: 'Base', repo: 'os', baseurl: '/os/$releasever/os/x86_64/' },
    { id: 'sng-updates', name: 'Updates', repo: 'updates', baseurl: '/os/$releasever/updates/x86_64/' },
    { id: 'sng-extras', name: 'Extras', repo: 'extras', baseurl: '/os/$releasever/extras/x86_64/' },
    { id: 'sng-pkgs', name: 'Sangoma Packages', repo: 'sng7', baseurl: '/sng7/sng7' },
    { id: 'sng-epel', name: 'Epel', repo: 'epel', baseurl: '/sng7/epel' },
  ]
  const commercial = '/sng7/$releasever/commercial/$basearch/'
  return {
    'Sangoma-Base.repo': text(core),
    'Sangoma-Commercial.repo': text([
      { id: 'sng-commercial', name: 'Commercial', repo: 'commercial', baseurl: commercial, isOff: true },
    ]),
    'Sangoma-CR.repo': text([
      {
        ...{ id: 'sng-cr', name: 'CR', repo: 'cr', baseurl: '/sng7/$releasever/cr/$basearch/' },
        ...{ isOff: true, isChecked: true },
      },
    ]),
    'Sangoma-fasttrack.repo': text([
      { id: 'fasttrack', name: 'fasttrack', repo: 'fasttrack', isOff: true, isChecked: true },
    ]),
    'Sangoma-Media.repo':
      '[sng7-media]\nname=SNG7-$releasever - Media\nbaseurl=file:///media/SNG7/\n        file:///media/cdrom/\ngpgcheck=0\nenabled=0\n',
    'Sangoma-Sources.repo':
      '[src-os]\nname=SNG7 - Sources\nbaseurl=http://sng7.com/sng7/src/os\ngpgcheck=0\nenabled=0\n',
    'CentOS-Sources.repo':
      '[base-source]\nname=CentOS-$releasever - Base Sources\nbaseurl=http://vault.centos.org/centos/$releasever/os/Source/\ngpgcheck=1\nenabled=0\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-CentOS-7\n',
  }
}

function text(repositories: VendorRepository[]): string {
  const sections = repositories.map(({ id, name, repo, baseurl, isOff, isChecked }) =>
    [
      `[${id}]`,
      `name=SNG7-$releasever - ${name}`,
      ...(repo === undefined ? [] : [`mirrorlist=${vendorMirrorlist(repo)}`]),
      ...(baseurl === undefined ? [] : [`#baseurl=http://package1.sangoma.net${baseurl}`]),
      `gpgcheck=${isChecked === true ? 1 : 0}`,
      `gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-${id === 'sng-epel' ? 'EPEL-7' : 'Sangoma-7'}`,
      ...(isOff === true ? ['enabled=0'] : []),
      '',
    ].join('\n'),
  )
  return `# Sangoma-Base.repo: the mirror system chooses by the address of the client\n\n${sections.join('\n')}`
}

/** What packages of the vendor put on an SNG7 box that runs this major, but for modules and keys. */
export function el7Files(major: number): Record<string, BoxFile> {
  const repoFiles = Object.entries(vendorRepoFiles()).map(([name, content]) => [`/etc/yum.repos.d/${name}`, content])
  return {
    '/usr/bin/yum': { text: '#!/usr/bin/python\n', mode: 0o755 },
    '/etc/os-release':
      'NAME="Sangoma Linux"\nVERSION="7 (Core)"\nID="sangoma"\nID_LIKE="centos rhel fedora"\nVERSION_ID="7"\n',
    '/etc/sangoma-release': 'Sangoma Linux release 7.8.2003 (Core)\n',
    '/etc/redhat-release': { link: 'sangoma-release' },
    '/etc/yum.conf':
      '[main]\ncachedir=/var/cache/yum/$basearch/$releasever\nkeepcache=0\ndebuglevel=2\nlogfile=/var/log/yum.log\nexactarch=1\nobsoletes=1\ngpgcheck=1\nplugins=1\ninstallonly_limit=5\ndistroverpkg=centos-release\n',
    ...(Object.fromEntries(repoFiles) as Record<string, string>),
    '/etc/yum/vars/dist': 'sng7\n',
    '/etc/yum/vars/staging': '\n',
    '/etc/yum/vars/infra': 'stock\n',
    '/etc/yum/pluginconf.d/fastestmirror.conf': '[main]\nenabled=1\nverbose=0\nsocket_timeout=3\n',
    '/etc/pki/rpm-gpg/RPM-GPG-KEY-Sangoma-7': 'not a key\n',
    '/etc/pki/rpm-gpg/RPM-GPG-KEY-EPEL-7': 'not a key\n',
    '/etc/schmooze/pbx-version': `12.7.${major === 15 ? '6-2002' : '8-2204'}-1.sng7\n`,
    '/etc/schmooze/pbx-brand': 'pbxact\n',
    '/etc/schmooze/pbxid': '12345678\n',
    '/etc/schmooze/schmooze.zl': 'Product-Name = PBXact\ndeploymentid = 12345678\nsysadmin_exp = 2027-01-31\n',
    '/etc/chrony.conf': 'server 0.sangoma.pool.ntp.org iburst\n',
    '/var/spool/cron/asterisk': { text: cronOf('/usr/sbin/fwconsole'), mode: 0o600 },
    '/etc/cron.d/0hourly': '01 * * * * root run-parts /etc/cron.hourly\n',
    '/etc/httpd/conf/httpd.conf':
      'ServerRoot "/etc/httpd"\nListen 80\nInclude conf.modules.d/*.conf\nUser asterisk\nGroup asterisk\nDocumentRoot "/var/www/html"\nIncludeOptional conf.d/*.conf\n',
    '/etc/httpd/conf.d/': { folder: true },
    '/etc/httpd/conf.modules.d/00-base.conf': 'LoadModule mime_module modules/mod_mime.so\n',
    '/usr/lib/systemd/system/httpd.service': '[Unit]\nDescription=The Apache HTTP Server\n',
    '/etc/systemd/system/': { folder: true },
    '/var/cache/yum/x86_64/7/sng-pkgs/cachecookie': '',
  }
}

/** Jobs of the user asterisk as FreePBX writes them. */
export function cronOf(fwconsole: string): string {
  return [
    `12 3 * * 6 ${fwconsole} ma listonline --sendemail -q > /dev/null 2>&1`,
    `40 3 * * 6 ${fwconsole} ma installall --sendemail -q > /dev/null 2>&1`,
    '*/15 * * * * [ -x /usr/bin/true ] && /usr/bin/true\n',
  ].join('\n')
}
