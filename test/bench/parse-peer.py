"""createrepo_c's parser over a primary.xml, into its own package structures, and nothing else."""
import sys

import createrepo_c

createrepo_c.xml_parse_primary(sys.argv[1], pkgcb=lambda package: None, do_files=False)
