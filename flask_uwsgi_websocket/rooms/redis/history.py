"""What kept rooms keep: for each a stream, and a hash with its epoch and the last offset."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from typing import Any

from ..backplane import Log
from ..options import MAX_KEPT
from ..positions import Position, new_epoch
from ..record import BadRecord, KeptRecord, Kind, kept
from .scripts import Call, Script

#: Seconds for which the result of a send with a key is kept.
_KEY_SECONDS = 300
#: An epoch outlives the last message by so many times what the room keeps it, and by so many
#: seconds at least: else all clients of a quiet room would have to load it anew.
_EPOCH_FACTOR, _EPOCH_SECONDS = 10, 3600

_TIME = """
local function milliseconds()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
"""

# A server tells by its replication id whose data it has: it gets another one when it starts, and
# when it takes over from a master. Then the last messages, which somebody may have read, may be
# lost to it, so the log begins anew: their offsets must not come again for others.
_BEGIN = """
local log, top = KEYS[1], KEYS[2]
local run = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''

local function begin(epoch, keeps)
  redis.call('HSET', top, 'epoch', epoch, 'run', run, 'keeps', keeps, 'offset', 0, 'bytes', 0)
  redis.call('DEL', log)
  return epoch
end

local function current(fresh, keeps)
  local known = redis.call('HMGET', top, 'epoch', 'run', 'keeps')
  if known[2] ~= run then return begin(fresh, keeps) end
  if known[3] ~= keeps then redis.call('HSET', top, 'keeps', keeps) end
  return known[1]
end

local function announce(verb, channel, position, time, body)
  redis.call(verb, channel, 'K' .. position .. ' ' .. time .. '\\0' .. body)
end
"""

# An entry has its time, and the bytes of all before it.
_APPEND = Script(
    _TIME
    + _BEGIN
    + """
local verb, channel, body, fresh, count, keeps, most, epoch_keeps, key_keeps = unpack(ARGV)
-- What a key stands for is gone when the log is forgotten, of which "forgets" is the count.
local forgets = redis.call('HGET', top, 'forgets') or '0'
local done = KEYS[3] and redis.call('GET', KEYS[3])
if done then
  local position, before = string.match(done, '^(%S+) ?(%d*)$')
  if before == forgets or before == '' and forgets == '0' then return position end
end

local epoch = current(fresh, keeps)
local offset = string.format('%.0f', redis.call('HINCRBY', top, 'offset', 1))
local bytes = redis.call('HINCRBY', top, 'bytes', #body)
local id, time, latest = offset .. '-0', milliseconds(), redis.call('HGET', top, 'time')
-- A clock that is put back must not make holes in what is kept by time.
if latest and tonumber(latest) > tonumber(time) then time = latest end
redis.call('HSET', top, 'time', time)
redis.call('XADD', log, 'MAXLEN', count, id, 'time', time, 'before', bytes - #body, 'body', body)

local function is_over(entry)
  local age, size = time - entry[2][2], bytes - entry[2][4]
  return entry[1] ~= id and (age > tonumber(keeps) or size > tonumber(most))
end

local number, over = 1, true
while over do
  local last
  for _, entry in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', number)) do
    over = is_over(entry)
    if not over then break end
    last = string.match(entry[1], '%d+')
  end
  if last then redis.call('XTRIM', log, 'MINID', string.format('%.0f', last + 1)) end
  number = math.min(2 * number, 256)
end

redis.call('PEXPIRE', log, keeps)
redis.call('PEXPIRE', top, epoch_keeps)
local position = epoch .. '.' .. offset
if KEYS[3] then redis.call('SET', KEYS[3], position .. ' ' .. forgets, 'PX', key_keeps) end
announce(verb, channel, position, time, body)
return position
"""
)

_TOUCH = Script(
    _BEGIN
    + """
local epoch = current(ARGV[1], ARGV[2])
redis.call('PEXPIRE', top, ARGV[3])
return epoch .. '.' .. redis.call('HGET', top, 'offset')
"""
)

_FORGET = Script(
    _TIME
    + _BEGIN
    + """
local keeps = redis.call('HGET', top, 'keeps')
if not keeps then return 0 end
redis.call('HINCRBY', top, 'forgets', 1)
announce(ARGV[1], ARGV[2], begin(ARGV[4], keeps) .. '.0', milliseconds(), ARGV[3])
return 1
"""
)

_READ = Script(
    _TIME
    + """
local log, top = KEYS[1], KEYS[2]
local first, limit, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', top, 'epoch', 'offset', 'keeps')
if not known[1] then return {} end

local oldest = milliseconds() - known[3]
local entries, bytes = {}, 0
while true do
  local chunk = redis.call('XRANGE', log, first, '+', 'COUNT', 50)
  for _, entry in ipairs(chunk) do
    local time, body = entry[2][2], entry[2][6]
    if tonumber(time) >= oldest then
      bytes = bytes + #body
      if #entries == limit or #entries > 0 and bytes > most then
        return {known[1], known[2], entries}
      end
      entries[#entries + 1] = {entry[1], time, body}
    end
    first = '(' .. entry[1]
  end
  if #chunk < 50 then return {known[1], known[2], entries} end
end
"""
)


class Logs:
    """Makes the commands about logs, and reads the replies.

    :param name: returns the name of a channel at the server.
    """

    def __init__(self, name: Callable[[str], bytes]) -> None:
        self._name = name

    def append(self, verb: bytes, record: KeptRecord) -> Call:
        """Append a record and publish it by this verb; replies with its position."""
        [channel] = record.channels
        keys = self._keys(channel)
        if record.key:
            digest = sha1(record.key.encode(errors="surrogatepass"), usedforsecurity=False)
            keys.append(b"%s:key:%s" % (self._name(channel), digest.hexdigest().encode()))
        history = record.history
        return _APPEND.call(
            keys,
            verb,
            self._name(channel),
            record.body(),
            new_epoch(),
            history.count,
            _milliseconds(history.seconds),
            MAX_KEPT,
            _epoch_keeps(history.seconds),
            _KEY_SECONDS * 1000,
        )

    def touch(self, channel: str, seconds: float) -> Call:
        """See that there is a log; replies with the last position."""
        return _TOUCH.call(
            self._keys(channel), new_epoch(), _milliseconds(seconds), _epoch_keeps(seconds)
        )

    def forget(self, verb: bytes, channel: str) -> Call:
        """Begin a log anew, if there is one, and publish that."""
        body = KeptRecord(Kind.MESSAGE, (channel,)).body()
        return _FORGET.call(self._keys(channel), verb, self._name(channel), body, new_epoch())

    def read(self, channel: str, after: int, limit: int, max_size: int) -> Call:
        """Read a log; :meth:`log_of` takes the reply."""
        return _READ.call(self._keys(channel), after + 1, limit, max_size)

    def _keys(self, channel: str) -> list[bytes]:
        name = self._name(channel)
        return [name + b":log", name + b":top"]

    @staticmethod
    def position_of(reply: bytes) -> Position:
        """Take a reply with a position."""
        position = Position.parse(reply.decode())
        assert position is not None
        return position

    @staticmethod
    def log_of(reply: list[Any]) -> Log:
        """Take what :meth:`read` is replied.

        What another release has written, and this one cannot read, is a hole: what is before it
        counts as trimmed.
        """
        if not reply:
            return Log("", 0)
        epoch = reply[0].decode()
        entries: list[KeptRecord] = []
        for number, time, body in reply[2]:
            position = Position(epoch, int(number.partition(b"-")[0]))
            try:
                entries.append(kept(body, position, int(time) / 1000))
            except BadRecord:
                entries.clear()
        return Log(epoch, int(reply[1]), tuple(entries))


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)


def _epoch_keeps(seconds: float) -> int:
    return _milliseconds(max(_EPOCH_FACTOR * seconds, _EPOCH_SECONDS))
