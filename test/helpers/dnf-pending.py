#!/usr/bin/python3
"""dnf-pending.py DNF_CONF INSTALLROOT RELEASEVER: what `dnf upgrade` would do, as JSON on the last line of stdout:
{"error": null or text, "items": [["Upgrade", "name-1.0-2.noarch"], ...]}, asked of dnf's own solver. Changes nothing but
the metadata cache."""
import json
import sys

import dnf
import dnf.conf
import dnf.exceptions

config, root, releasever = sys.argv[1:4]
conf = dnf.conf.Conf()
conf.read(config)
conf.config_file_path = config
conf.installroot = root
for folder in ("cachedir", "logdir", "persistdir"):  # below the root, as the dnf command has them
    setattr(conf, folder, root + getattr(conf, folder))
conf.assumeyes = True
conf.substitutions.update(releasever=releasever, arch="x86_64", basearch="x86_64")
base = dnf.Base(conf)  # with a configuration of its own, or it would look at the host's packages
if conf.plugins:
    base.init_plugins()
    base.configure_plugins()
base.read_all_repos()
for repo in base.repos.iter_enabled():
    repo._repo.expire()  # as `dnf --refresh` does
error, items = None, []
try:
    base.fill_sack(load_system_repo=True)
    base.upgrade_all()
    base.resolve()
    items = sorted([item.action_name, str(item.pkg)] for item in base.transaction)
except dnf.exceptions.Error as failure:
    error = str(failure)
base.close()
print(json.dumps({"error": error, "items": items}))
