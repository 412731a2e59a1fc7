import t from 'tap'
import { isLitter } from '../../manifests/litter.ts'

t.test('what systems and kiosks leave on sticks is known by its name, in any case', (t) => {
  const litter = [
    'System Volume Information',
    '$RECYCLE.BIN',
    'RECYCLER',
    'Thumbs.db',
    'desktop.ini',
    'autorun.inf',
    'AUTORUN.INF',
    'FOUND.000',
    'FILE0001.CHK',
    'WPSettings.dat',
    'IndexerVolumeGuid',
    'lost+found',
    'LOST.DIR',
    '._hq-7.tar',
    '.Trash-1000',
    '.Trashes',
    '.Spotlight-V100',
    '.fseventsd',
    '.DS_Store',
    '.TemporaryItems',
  ]
  for (const name of litter) t.ok(isLitter(name), name)
  for (const name of ['gapferry', 'hq', 'hq-7.tar', 'found.tar', 'thumbs', 'autorun', 'recycler2', 'system']) {
    t.notOk(isLitter(name), name)
  }
  t.end()
})
