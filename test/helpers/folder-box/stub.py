#!/usr/bin/python3 -SEs
"""fwconsole, mysql and any other program of a box, as far as tests need them: one script under several names, one state
(state.sqlite in the folder above) that all of them share, so that what fwconsole sets mysql tells, and each call recorded.
`answers/NAME` in that folder says what another program prints; its first line is the exit status. `hooks/ma` is run for
the `ma` commands that this file does not know, with MODULE_REPO in its environment. A call is mostly the start of python, and a
test makes hundreds: no site packages, and modules that few calls need are imported where they are needed."""
import json
import os
import re
import sqlite3
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
NAME = os.path.basename(sys.argv[0])


def main(args):
    db = sqlite3.connect(os.path.join(HOME, 'state.sqlite'), timeout=20, isolation_level=None)
    db.execute('PRAGMA synchronous = OFF')  # no test is about this file's durability
    text = '' if NAME != 'mysql' or execute_of(args) is not None else sys.stdin.read()
    secret_free = [re.sub(r'^(--password=|-p).+', r'\1***', arg) for arg in args]
    db.execute('INSERT INTO calls (program, arguments, input) VALUES (?, ?, ?)', (NAME, json.dumps(secret_free), text))
    if NAME == 'mysql':
        return mysql(db, args, text)
    if NAME == 'fwconsole':
        return fwconsole(db, args)
    return other(args)


# ------------------------------------------------------------------------------------------------- fwconsole


def fwconsole(db, args):
    words = [arg for arg in args if not arg.startswith('-')] if args[:1] != ['setting'] else args
    if words[:1] in (['setting'], ['set']):
        return setting(db, [arg for arg in args[1:] if arg not in ('--no-interaction', '-n', '-q', '--quiet')])
    if words[:2] == ['ma', 'list']:
        return modules(db, '--format=json' in args)
    if words[:1] in (['ma'], ['moduleadmin']):
        return ma(db, args)
    if words[:1] in (['reload'], ['r'], ['chown'], ['sa'], ['start'], ['stop'], ['restart'], ['util'], ['sounds']):
        return other(args)
    print('Command "%s" is not defined.' % ' '.join(args[:1]), file=sys.stderr)
    return 1


def setting(db, args):
    if len(args) not in (1, 2):
        print('Not enough arguments.', file=sys.stderr)
        return 1
    row = db.execute('SELECT value, readonly FROM freepbx_settings WHERE keyword = ?', (args[0],)).fetchone()
    if row is None:
        print('The setting "%s" was not found!' % args[0])
        return 4
    if len(args) == 1:
        print('Setting of "%s" is [%s]' % (args[0], row[0]))
        return 0
    print('Changing "%s" from [%s] to [%s]' % (args[0], row[0], args[1]))
    db.execute('UPDATE freepbx_settings SET value = ? WHERE keyword = ?', (args[1], args[0]))
    return 0


def modules(db, as_json):
    states = {0: 'Disabled', 1: 'Enabled'}
    rows = [[name, version, states[enabled], 'GPLv3+'] for name, version, enabled in
            db.execute('SELECT modulename, version, enabled FROM modules ORDER BY modulename')]
    if as_json:
        print(json.dumps({'type': 'message', 'data': 'No repos specified, using: [standard] from last GUI settings'}, separators=(',', ':')))
        print(json.dumps({'type': 'message', 'data': rows}, separators=(',', ':')))
        return 0
    for row in rows:
        print('| %s |' % ' | '.join(row))
    return 0


def ma(db, args):
    hook = os.path.join(HOME, 'hooks', 'ma')
    if not os.path.exists(hook):
        return other(args)
    repo = db.execute("SELECT value FROM freepbx_settings WHERE keyword = 'MODULE_REPO'").fetchone()[0]
    import subprocess

    return subprocess.call([hook] + args[1:], env=dict(os.environ, MODULE_REPO=repo))


def other(args):
    path = os.path.join(HOME, 'answers', NAME)
    if not os.path.exists(path):
        return 0
    with open(path) as file:
        status, _, text = file.read().partition('\n')
    sys.stdout.write(text)
    return int(status)


# ------------------------------------------------------------------------------------------------- mysql


OPTIONS = {'-u': '--user', '-p': '--password', '-h': '--host', '-e': '--execute', '-D': '--database'}


def mysql(db, args, text):
    options, database = options_of(args)
    secret = options.get('--password', os.environ.get('MYSQL_PWD', ''))
    user = options.get('--user', 'root')
    meant = dict(db.execute("SELECT key, value FROM facts WHERE key LIKE 'mysql%'"))
    if meant.get('mysql down'):
        print("ERROR 2002 (HY000): Can't connect to local MySQL server through socket '/var/lib/mysql/mysql.sock' (2)", file=sys.stderr)
        return 1
    if (user, secret) != (meant['mysql user'], meant['mysql password']):
        print("ERROR 1045 (28000): Access denied for user '%s'@'localhost' (using password: %s)" % (user, 'YES' if secret else 'NO'), file=sys.stderr)
        return 1
    if (database or options.get('--database')) not in ('asterisk',):
        print('ERROR 1046 (3D000) at line 1: No database selected', file=sys.stderr)
        return 1
    status = 0
    for statement in statements(options.get('--execute', text)):
        try:
            show(db.execute(statement), '--skip-column-names' in options or '-N' in options)
        except sqlite3.Error as error:
            print('ERROR 1064 (42000) at line 1: %s' % error, file=sys.stderr)
            status = 1
            if '--force' not in options and '-f' not in options:
                break
    return 0 if '--force' in options or '-f' in options else status


def options_of(args):
    options, database, rest = {}, None, list(args)
    while rest:
        arg = rest.pop(0)
        name, equals, value = arg.partition('=')
        if name in ('--defaults-extra-file', '--defaults-file'):
            options.update(client_section(value))
        elif arg[:2] in OPTIONS and not arg.startswith('--'):
            value = arg[2:] or (rest.pop(0) if arg[:2] != '-p' and rest else '')
            options[OPTIONS[arg[:2]]] = value
        elif re.match(r'^-[A-Za-z]+$', arg):
            options.update(('-' + letter, '') for letter in arg[1:])
        elif name in ('--user', '--password', '--host', '--execute', '--database') and not equals and rest:
            options[name] = rest.pop(0)
        elif arg.startswith('--'):
            options[name] = value
        else:
            database = arg
    return options, database


def client_section(path):
    import configparser

    parser = configparser.RawConfigParser(allow_no_value=True)
    parser.read(path)
    values = dict(parser.items('client')) if parser.has_section('client') else {}
    return {'--' + key: (value or '').strip('"\'') for key, value in values.items()}


def execute_of(args):
    return options_of(args)[0].get('--execute')


def statements(text):
    """SQL of MySQL as sqlite reads it: backslashes mean something in strings, and these may stand in double quotes."""
    part, found, i = '', [], 0
    while i < len(text):
        char = text[i]
        if char in '\'"':
            literal, i = string(text, i)
            if part[-1:] in 'xX':  # X'6869', which sqlite would keep as bytes
                part, literal = part[:-1], bytes.fromhex(literal).decode()
            part += "'%s'" % literal.replace("'", "''")
            continue
        if char == ';':
            found.append(part)
            part = ''
        else:
            part += char
        i += 1
    return [one.strip() for one in found + [part] if one.strip()]


def string(text, start):
    quote, out, i = text[start], '', start + 1
    names = {'n': '\n', 't': '\t', 'r': '\r', '0': '\0'}
    while i < len(text):
        if text[i] == '\\' and i + 1 < len(text):
            out += names.get(text[i + 1], text[i + 1])
            i += 2
        elif text[i] == quote and text[i + 1:i + 2] == quote:
            out += quote
            i += 2
        elif text[i] == quote:
            return out, i + 1
        else:
            out += text[i]
            i += 1
    raise SystemExit('mysql: a string without end: %s' % text)


def show(cursor, is_bare):
    if cursor.description is None:
        return
    rows = cursor.fetchall()
    if rows and not is_bare:
        print('\t'.join(column[0] for column in cursor.description))
    for row in rows:
        print('\t'.join('NULL' if value is None else escaped(str(value)) for value in row))


def escaped(value):
    return value.replace('\\', '\\\\').replace('\n', '\\n').replace('\t', '\\t').replace('\0', '\\0')


sys.exit(main(sys.argv[1:]))
