"""What a server does, in one step each, about who is in a room: for occupancy."""

from __future__ import annotations

from .scripts import Script

# A room is one hash, so that nothing of it is lost without the rest. Its fields:
#   c and a connection:  its worker, a space, its user
#   u and a user:        how many connections, when the grace ends, grace, limit, since, info
#   w and a worker:      how many connections
#   #                    how many users
_ROOM = """
local room = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function user_of(name)
  local value = redis.call('HGET', room, 'u' .. name)
  if not value then return nil end
  local connections, ends, grace, rest = string.match(value, '^(%d+) (%d+) (%d+) (.*)$')
  local since, info = string.match(rest, '^%d+ (%S+) (.*)$')
  return {
    connections = tonumber(connections), ends = tonumber(ends), grace = tonumber(grace),
    rest = rest, since = since, info = info,
  }
end

local function put(name, user)
  local numbers = string.format('%d %.0f %.0f ', user.connections, user.ends, user.grace)
  redis.call('HSET', room, 'u' .. name, numbers .. user.rest)
end

local function remove(connection)
  local value = redis.call('HGET', room, 'c' .. connection)
  if not value then return end
  local worker, name = string.match(value, '^(%S+) (.*)$')
  local user = user_of(name)
  redis.call('HDEL', room, 'c' .. connection)
  if redis.call('HINCRBY', room, 'w' .. worker, -1) <= 0 then
    redis.call('HDEL', room, 'w' .. worker)
  end
  user.connections = user.connections - 1
  if user.connections == 0 then user.ends = now + user.grace end
  put(name, user)
  return name, user
end

-- The milliseconds that are left of a grace: not more than it has, where the clock was put back.
local function left_of(user)
  return math.max(math.min(user.ends - now, user.grace), 0)
end
"""

#: Adds a connection. Returns 1 for a new user, 0 for a known one, -1 where the room is full.
ENTER = Script(
    _ROOM
    + """
local worker, connection, name, grace, limit, since, info, keeps = unpack(ARGV)
local user, is_new = user_of(name), 0
if not user then
  local users = tonumber(redis.call('HGET', room, '#') or 0)
  if tonumber(limit) > 0 and users >= tonumber(limit) then return -1 end
  redis.call('HINCRBY', room, '#', 1)
  user, is_new = {connections = 0, since = since}, 1
end
if redis.call('HSET', room, 'c' .. connection, worker .. ' ' .. name) == 1 then
  redis.call('HINCRBY', room, 'w' .. worker, 1)
  user.connections = user.connections + 1
end
user.ends, user.grace = 0, tonumber(grace)
user.rest = limit .. ' ' .. user.since .. ' ' .. info
put(name, user)
redis.call('PEXPIRE', room, keeps)
return is_new
"""
)

#: Removes a connection. Returns its user, and milliseconds of grace, if that was the last one.
LEAVE = Script(
    _ROOM
    + """
local name, user = remove(ARGV[1])
if not user or user.connections > 0 then return {} end
return {name, user.grace}
"""
)

#: Removes all connections of a worker but those named. Returns the users in grace, whoever had
#: them, each with the milliseconds that are left.
TAKE_OVER = Script(
    _ROOM
    + """
local worker, kept = ARGV[1], {}
for index = 2, #ARGV do kept[ARGV[index]] = true end
local fields = redis.call('HGETALL', room)
for index = 1, #fields, 2 do
  local kind, name = string.sub(fields[index], 1, 1), string.sub(fields[index], 2)
  if kind == 'c' and not kept[name] and string.match(fields[index + 1], '^%S+') == worker then
    remove(name)
  end
end
local waiting = {}
for index = 1, #fields, 2 do
  if string.sub(fields[index], 1, 1) == 'u' then
    local name = string.sub(fields[index], 2)
    local user = user_of(name)
    if user.connections == 0 then
      waiting[#waiting + 1] = name
      waiting[#waiting + 1] = left_of(user)
    end
  end
end
return waiting
"""
)

#: Removes a user whose grace is over. Returns nothing for one who is gone or back, the milliseconds
#: that are left, or what there is to say: info, since, whether the room is empty, and a 0.
END = Script(
    _ROOM
    + """
local user = user_of(ARGV[1])
if not user or user.connections > 0 then return {} end
if user.ends > now and user.ends <= now + user.grace then return {left_of(user)} end
redis.call('HDEL', room, 'u' .. ARGV[1])
local is_empty = redis.call('HINCRBY', room, '#', -1) <= 0
if is_empty then redis.call('DEL', room) end
return {user.info, user.since, is_empty and 1 or 0, 0}
"""
)

#: Keeps a room for so long. Returns how many connections it has of a worker.
KEEP = Script("""
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(redis.call('HGET', KEYS[1], 'w' .. ARGV[1]) or 0)
""")

# All workers that live are in one sorted set, by the time of their last sign.
_WORKERS = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

#: Gives a sign of life of a worker. Returns whether it was known.
LIVE = Script(
    _WORKERS
    + """
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
-- First, since a server that is full lets a script go on that has written something.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
return known and 1 or 0
"""
)

#: Returns the workers without a sign for so many milliseconds.
DEAD = Script(_WORKERS + "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])")

#: Forgets a worker that is still dead.
BURY = Script(
    _WORKERS
    + """
local sign = redis.call('ZSCORE', KEYS[1], ARGV[1])
if sign and tonumber(sign) <= now - ARGV[2] then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
"""
)
