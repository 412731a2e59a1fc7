import type { BoxFile } from './box.ts'
import { cronOf } from './el7.ts'

/** What packages of the vendor put on a Debian 12 box of major 17, but for modules and keys. */
export function debian12Files(): Record<string, BoxFile> {
  return {
    '/usr/bin/apt-get': { text: '', mode: 0o755 },
    '/var/lib/dpkg/status': dpkgStatus({
      freepbx17: '17.0.1-1.sng12',
      'sangoma-pbx17': '2407-1.sng12',
      apache2: '2.4.62-1',
    }),
    '/etc/os-release':
      'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n',
    '/etc/debian_version': '12.11\n',
    '/etc/apt/sources.list':
      'deb http://deb.debian.org/debian bookworm main\ndeb [arch=amd64] http://deb.freepbx.org/freepbx17-prod bookworm main\n',
    '/etc/apt/preferences.d/99sangoma-fpbx-repository': 'Package: *\nPin: origin deb.freepbx.org\nPin-Priority: 600\n',
    '/etc/apt/trusted.gpg.d/freepbx.gpg': 'not a key\n',
    '/etc/sangoma/pbx-version': '12.0.1\n',
    '/etc/sangoma/pbx-brand': 'pbxact\n',
    '/etc/schmooze/pbxid': '12345678\n',
    '/etc/sangoma/license.txt': 'Product-Name = PBXact\ndeploymentid = 12345678\nsysadmin_exp = 2027-01-31\n',
    '/etc/chrony/chrony.conf': 'pool 2.debian.pool.ntp.org iburst\n',
    '/var/spool/cron/crontabs/asterisk': { text: cronOf('/usr/sbin/fwconsole'), mode: 0o600 },
    '/etc/cron.d/php': '09,39 * * * * root [ -x /usr/lib/php/sessionclean ] && /usr/lib/php/sessionclean\n',
    '/etc/apache2/apache2.conf':
      'User asterisk\nGroup asterisk\nInclude ports.conf\nIncludeOptional mods-enabled/*.conf\nIncludeOptional conf-enabled/*.conf\nIncludeOptional sites-enabled/*.conf\n',
    '/etc/apache2/ports.conf': 'Listen 80\n',
    '/etc/apache2/sites-available/000-default.conf':
      '<VirtualHost *:80>\n  DocumentRoot /var/www/html\n</VirtualHost>\n',
    '/etc/apache2/sites-enabled/000-default.conf': { link: '../sites-available/000-default.conf' },
    '/etc/apache2/conf-available/': { folder: true },
    '/etc/apache2/conf-enabled/': { folder: true },
    '/etc/apache2/mods-enabled/': { folder: true },
    '/lib/systemd/system/apache2.service': '[Unit]\nDescription=The Apache HTTP Server\n',
    '/etc/systemd/system/': { folder: true },
  }
}

function dpkgStatus(packages: Record<string, string>): string {
  const stanzas = Object.entries(packages).map(
    ([name, version]) =>
      `Package: ${name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: ${version}\nDescription: ${name}\n`,
  )
  return stanzas.join('\n')
}
