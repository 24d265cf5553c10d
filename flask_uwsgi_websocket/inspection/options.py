"""uWSGI's options in one form, whatever way they were spelled and wherever they come from.

``-p 4``, ``--workers=4``, ``workers = 4`` in a file, ``UWSGI_PROCESSES=4`` and what ``uwsgi.opt``
shows of each are ``processes`` here, with the value ``"4"``. What uWSGI's own table says of its
options (``uwsgi_base_options`` of 2.0.31, and its embedded plugins') is at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

#: An option's name, and its value; None where it has none.
Pair = tuple[str, "str | None"]

#: What uWSGI expands in values, on its command line too, and has no escape for: $(an environment
#: variable), @(a file, or exec://a command) and %(another option).
EXPANDED = re.compile(r"[$@%]\(")
_NOTHING_ELSE = re.compile(r"\s*[$@%]\(.*\)\s*")

_NUMBER = re.compile(r"\s*([+-]?\d+)")

#: What uWSGI's files say for a flag (core/uwsgi.c, uwsgi_opt_true).
ON = ("1", "true", "yes", "on")
OFF = ("0", "false", "no", "off")


class Options:
    """uWSGI's options under one name each.

    A file may hold what cannot be judged from outside. So there are three answers to whether an
    option is given, and two questions: :meth:`has` and :meth:`lacks` are both False in doubt.

    :param values: each option's values in order; the last one counts where uWSGI takes one.
    :param uncertain: options that may be given, or have another value.
    :param complete: whether every option was seen.
    """

    def __init__(
        self,
        values: Mapping[str, Sequence[str]],
        uncertain: Collection[str] = (),
        complete: bool = True,
    ) -> None:
        self._values = values
        self._uncertain = frozenset(map(canonical, uncertain))
        self._complete = complete
        #: Options that were asked for, and whose value is not known.
        self.doubts: set[str] = set()

    @classmethod
    def of(
        cls, pairs: Iterable[Pair], uncertain: Collection[str] = (), complete: bool = True
    ) -> Options:
        """Collect options, in whichever spelling."""
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            # An option without a value is on, or 1 (uwsgi_opt_true, uwsgi_opt_set_int).
            values.setdefault(canonical(name), []).append("1" if value is None else value)
        return cls(values, uncertain, complete)

    @classmethod
    def of_process(
        cls, opt: Mapping[str, Any], first: Callable[[str], bytes | None] = lambda name: None
    ) -> Options:
        """Take ``uwsgi.opt``: bytes, True, or a list of them, under the name that was used.

        :param first: gives an option's first value, which ``uwsgi.opt`` may have lost to the last.
        """
        pairs: list[Pair] = []
        for name, last in opt.items():
            values = last if isinstance(last, list) else [last]
            lost = first(name)
            if lost is not None and lost not in values:
                values = [lost, *values]
            pairs += [
                (name, each.decode(errors="replace") if isinstance(each, bytes) else None)
                for each in values
            ]
        return cls.of(pairs)

    def __repr__(self) -> str:
        return f"Options({dict(self._values)!r}, {sorted(self._uncertain)!r}, {self._complete})"

    def values(self, name: str) -> list[str]:
        """Return the values that are known for certain, the last one last."""
        if name in self._uncertain:
            return []
        values = self._values.get(name, ())
        known = [value for value in values if not EXPANDED.search(value)]
        if len(known) < len(values):
            self.doubts.add(name)
        return known

    def given(self, *names: str) -> list[str]:
        """Return those of the names that are certainly given, and not turned off."""
        return [name for name in names if self._state(name) is True]

    def has(self, *names: str) -> bool:
        """Return whether one of these is certainly given, and not turned off."""
        return bool(self.given(*names))

    def lacks(self, *names: str) -> bool:
        """Return whether none of these is given, or each turned off, for certain."""
        return all(self._state(name) is False for name in names)

    def _state(self, name: str) -> bool | None:
        """Return whether an option is on; None in doubt."""
        if name in self._uncertain:
            return None
        if name not in self._values:
            return False if self._complete else None
        value = self._values[name][-1]
        if _NOTHING_ELSE.fullmatch(value):  # unlike ":$(PORT)", which is some address
            self.doubts.add(name)
            return None
        return value.lower() not in OFF

    def text(self, name: str) -> str:
        """Return the value that counts; an empty string where there is none, or in doubt."""
        return (self.values(name) or [""])[-1]

    def number(self, name: str, default: int | None = None) -> int | None:
        """Return the value that counts, as uWSGI reads it: leading digits, or 0; None in doubt."""
        values = self.values(name)
        if not values:
            missing = name not in self._values and name not in self._uncertain
            return default if missing and self._complete else None
        return integer(values[-1])

    def written(self, name: str) -> str:
        """Return the value that counts as it was written, placeholders and all."""
        return self._values[name][-1]

    def names(self) -> set[str]:
        """Return the names of all options that are given, or may be."""
        return {*self._values, *self._uncertain}


def canonical(name: str) -> str:
    """Return the name that we use for an option of uWSGI's."""
    return ALIASES.get(name, name)


def spellings(*names: str) -> frozenset[str]:
    """Return all that uWSGI calls these options, without the dashes."""
    long = {*names, *(alias for alias, name in ALIASES.items() if name in names)}
    return frozenset(long | {letter for letter, name in SHORT.items() if name in long})


def integer(text: str) -> int:
    """Read a number as C does: the digits that a text begins with, or 0."""
    found = _NUMBER.match(text)
    return int(found[1]) if found else 0


def split_words(words: Sequence[str], known: Collection[str] = ()) -> tuple[list[Pair], list[str]]:
    """Read a command line as ``getopt_long`` does.

    :param known: uWSGI's options, so that abbreviated ones are found; from ``uwsgi --help``.
    :returns: the options, and the words that belong to none, which uWSGI takes for files.
    """
    pairs: list[Pair] = []
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            others += rest
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = _unabbreviated(name, known)
            pairs.append((name, value if equals else _next(name, rest)))
        elif word.startswith("-") and len(word) > 1:
            pairs += _short(word[1:], rest)
        else:
            others.append(word)
    return pairs, others


def _unabbreviated(name: str, known: Collection[str]) -> str:
    matches = [each for each in known if each.startswith(name)] if name not in known else []
    return matches[0] if len(set(map(canonical, matches))) == 1 else name


def _next(name: str, rest: list[str]) -> str | None:
    # An optional value comes in the same word or not at all.
    return rest.pop(0) if rest and name not in FLAGS and name not in OPTIONAL else None


def _short(letters: str, rest: list[str]) -> Iterable[Pair]:
    """Read ``-M``, ``-Mi``, ``-p4`` and ``-p 4``."""
    for index, letter in enumerate(letters):
        name = SHORT.get(letter, letter)
        if name in FLAGS:
            yield name, None
            continue
        value = letters[index + 1 :]
        yield name, value or _next(name, rest)
        return


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Options that make uWSGI a router in front of the workers.
ROUTERS = ("http", "https", "https2")

#: Sockets of the workers on which uWSGI keeps connections after their requests,
KEEPING_SOCKETS = ("http11-socket", "puwsgi-socket")
#: ... all on which WebSockets may come,
SOCKETS = ("socket", "http-socket", *KEEPING_SOCKETS, "scgi-socket", "scgi-nph-socket")
#: ... those on which the worker itself speaks TLS,
TLS_SOCKETS = ("https-socket", "suwsgi-socket")
#: ... and those for FastCGI.
FASTCGI_SOCKETS = ("fastcgi-socket", "fastcgi-nph-socket")

#: Options that load an app.
LOADERS = ("module", "wsgi-file", "mount", "eval", "paste", "ini-paste", "pecan", "wsgi-lite")

#: Options that name a file of options.
FILES = ("ini", "xml", "yaml", "json", "config", "include", "inherit", "ini-paste")

#: The long name of a short option.
SHORT = _pairs("""
    A=sharedarea C=chmod-socket H=home J=test L=disable-logging M=master O=optimize Q=spooler
    R=max-requests S=set T=enable-threads a=abstract-socket b=buffer-size c=cgi-mode d=daemonize
    h=help i=single-interpreter l=listen m=memory-report p=processes r=reaper s=socket t=harakiri
    v=max-vars w=module x=xmlconfig y=yaml z=socket-timeout
""")

#: Other names of the options that we know something about.
ALIASES = _pairs("""
    workers=processes uwsgi-socket=socket ssl-socket=suwsgi-socket socket-protocol=protocol
    httprouter=http http-workers=http-processes py-auto-reload=py-autoreload
    python-auto-reload=py-autoreload python-autoreload=py-autoreload chmod=chmod-socket
    worker-mount=mount wsgi=module file=wsgi-file stats-server=stats subscribe-to=subscribe
    st=subscribe yml=yaml js=json xmlconfig=xml set-ph=set-placeholder vassals-set=vassal-set
    ini-paste-logged=ini-paste plugin=plugins plugin-dir=plugins-dir need-plugins=plugins
    need-plugin=plugins
""")

#: Options without a value.
FLAGS = _names("""
    abstract-socket alarm-list alarms-list auto-procname autoload cache-no-expire
    cache-report-freed-items cache-use-last-modified carbon-name-resolve carbon-no-workers
    carbon-resolve-names carbon-use-metrics catch-exceptions cflags cgi-mode cheap cheaper-algo-list
    cheaper-algos-list cheaper-busyness-verbose cheaper-list check-static-docroot clock-list
    clocks-list close-on-exec close-on-exec2 command-mode config-py daemons-honour-stdin die-on-idle
    die-on-term disable-logging disable-sendfile disable-write-exception dot-h drop-after-apps
    drop-after-init dump-options early-emperor emperor-graceful-shutdown emperor-magic-exec
    emperor-no-blacklist emperor-nofollow emperor-tyrant emperor-tyrant-nofollow enable-metrics
    enable-proxy-protocol enable-threads end-blacklist end-whitelist exit-on-reload fastrouter-cheap
    fastrouter-fallback-on-no-key force-gateway freebind gevent-early-monkey-patch
    gevent-monkey-patch gevent-wait-for-hub greenlet harakiri-no-arh harakiri-verbose help
    honour-range honour-stdin http-auto-chunked http-auto-gzip http-cheap http-chunked-input
    http-manage-rtsp http-manage-source http-raw-body http-websockets https-export-cert
    if-not-reload if-reload ignore-script-name ignore-sigpipe ignore-write-errors
    imperial-monitor-list imperial-monitors-list jailed lazy lazy-apps log-4xx log-5xx
    log-format-strftime log-master log-master-req-stream log-master-stream log-micros log-reopen
    log-truncate log-x-forwarded-for log-zero logfile-chown logformat-strftime logger-list
    loggers-list loop-list loops-list manage-script-name master master-as-root memory-report
    metric-dir-restore metrics-dir-restore metrics-no-cores nagios never-swap no-default-app
    no-defer-accept no-fd-passing no-harakiri-after-req-hook no-harakiri-arh no-initgroups
    no-orphans no-server no-site no-threads-wait paste-logger persistent-ipcsem plugin-list
    plugins-list propagate-touch py-call-osafterfork py-call-uwsgi-fork-hooks python-version
    rawrouter-cheap rawrouter-xclient re-fork re-fork-as-root re-fork-post-jail reaper refork
    refork-as-root refork-post-jail reload-on-exception reload-os-env reuse-port
    rsyslog-split-messages setns-preopen show-config shutdown-sockets single-interpreter skip-atexit
    skip-atexit-teardown skip-zero so-keepalive so-send-timeout so-write-timeout socket-send-timeout
    socket-write-timeout spooler-ordered spooler-quiet ssl-enable-sslv3 ssl-enable-tlsv1 ssl-enable3
    ssl-option ssl-verbose sslrouter-cheap sslrouter-sni start-unsubscribed start_response-nodelay
    static-gzip-all stats-http stats-min stats-minified stats-no-cores stats-no-metrics strict
    subscription-dotsplit subscriptions-use-credentials symcall-use-next tcp-fast-open-client
    tcp-fastopen-client tcp-nodelay threaded-logger thunder-lock ugreen
    unsubscribe-on-graceful-reload usage use-abort vacuum version vhost vhost-host
    write-errors-exception-only wsgi-accept-buffer wsgi-accept-buffers wsgi-disable-file-wrapper
    wsgi-strict zerg-fallback
""")

#: Options whose value, if they have one, stands in the same word: ``--chmod-socket=660``.
OPTIONAL = _names("""
    check-cache chmod chmod-socket end-for end-if endfor endif exit fastrouter-use-cache
    fastrouter-use-socket http-enable-proxy-protocol http-keepalive http-manage-expect
    http-use-cache http-use-socket ksm log-date log-prefix log-syslog logdate mule mule-msg-size
    need-app pyshell pyshell-oneshot rawrouter-use-cache rawrouter-use-socket snmp ssl-verify-depth
    sslrouter-use-cache sslrouter-use-socket
""")

#: Options that bring the master with them (UWSGI_OPT_MASTER).
MASTERED = _names("""
    alarm alarm-backlog alarm-fd alarm-listen-queue alarm-lq alarm-metric alarm-segfault
    attach-control-daemon attach-daemon attach-daemon2 backlog-alarm brutal-reload-on-fd cache-store
    cache-udp-node cache-udp-server carbon cheap cheaper cheaper-algo cheaper-initial
    cheaper-overload cheaper-rss-limit-hard cheaper-rss-limit-soft cheaper-step check-interval
    check-mount check-mountpoint cron cron-legion cron2 daemons-honour-stdin enable-metrics
    evil-reload-on-as evil-reload-on-rss exception-handler farm forkbomb-delay fs-brutal-reload
    fs-reload fs-signal idle legion legion-attach-daemon legion-cron legion-death
    legion-death-on-lord-error legion-freq legion-join legion-lord legion-mcast legion-node
    legion-node-joined legion-node-left legion-quorum legion-scroll legion-setup
    legion-skew-tolerance legion-smart-attach-daemon legion-smart-attach-daemon2 legion-tolerance
    legion-unlord listen-queue-alarm log-encoder log-master log-maxsize log-req-encoder log-socket
    log-syslog logger logger-req lq-alarm master-fifo metric metric-alarm metric-dir
    metric-dir-restore metric-threshold metrics-dir metrics-dir-restore metrics-no-cores mount-check
    mountpoint-check mule mule-msg-size mules multicast notify-socket py-auto-reload
    py-auto-reload-ignore py-autoreload py-tracebacker python-auto-reload python-autoreload
    queue-store rbtimer reload-on-fd req-logger rrdtool segfault-alarm setns-socket signal-rbtimer
    signal-timer smart-attach-daemon smart-attach-daemon2 spooler spooler-external st
    static-cache-paths static-cache-paths-name stats stats-http stats-min stats-minified
    stats-no-cores stats-no-metrics stats-push stats-pusher-default-freq stats-pushers-default-freq
    stats-server subscribe subscribe-to subscribe-with-modifier1 subscribe2
    subscription-notify-socket subscriptions-credentials-check subscriptions-sign-check
    subscriptions-sign-check-tolerance subscriptions-sign-skip-uid threaded-logger timer
    touch-chain-reload touch-exec touch-logreopen touch-logrotate touch-mules-reload touch-reload
    touch-signal touch-spoolers-reload touch-workers-reload udp unique-cron unique-cron-legion
    unique-legion-cron zerg-server
""")
