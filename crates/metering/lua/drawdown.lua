#!lua name=drawdown_v1
-- The accumulator of metering: what Redis checks and writes, one call at a time.
--
-- Shape. Two keys a shard in one hash slot: the head, a hash `<ns>:{S}:h`, and one list of blobs for each
-- batch, `<ns>:{S}:b:<generation>:<batch>`. Beside them the lease `<ns>:{S}:w`, and one key for all shards, `<ns>:{w}:w`,
-- with the workers that are there. Fields of the head:
--   g  generation            v  layout of the head      o  number of the open batch
--   r  roll of lanes: a random number, another one whenever lanes were retired; absent before the first time
--   b  last retired batch    n  blobs in the open batch f  fingerprint over them
--   s:<batch>  count:fingerprint of a sealed batch that is not retired
--   p:<lane>   epoch:applied:chain of a lane
--   i:<lane>   ms:applied, since when a lane stands there by this server's clock; void where the lane has moved
--   d:<dict>   how many names that dictionary has defined in the open batch
--   x  the only lane that may be attached anew, while lanes are settled one by one
--   y:<lane>   a lane that is set aside, because its usage can not be settled
-- An entry of a list is the blob's index (4 bytes, big endian) and then the blob.
--
-- Numbers. A Lua number is a double and exact to 2^53 only. So generations, epochs, sequences and chains are
-- strings of 16 lower-case hex digits: they are compared for equality as strings (the caller sends from - 1,
-- not from), epochs by size in two halves. Batch numbers and counts are decimal and stay below 2^53.
--
-- What must not be reordered: every check of a function comes before its first write, because Redis does not
-- undo what a failing function has written. The order of the checks is part of the protocol.
--
-- An answer is a list: a word, then its values. OK is the only one after which something has changed.
--
-- fingerprint(0) = "0"; fingerprint(n+1) = sha1hex(fingerprint(n) .. ":" .. checksum of the blob in hex)

-- Raised with every change of this file; a server that has a higher one keeps it. So what callers may rely on
-- only grows: a change that an older caller would not survive needs a library of another name.
local REVISION = 7

-- Fields written by one HSET or HDEL: Lua can spread only some thousand values over a call.
local FIELDS_MAX = 1000

-- Length of epoch:applied:chain.
local LANE_LENGTH = 50

-- The roll of a head of which no lane was retired.
local FIRST_ROLL = '0000000000000000'

-- A key that holds something else is damage, and no failure of the call. Any other error is one: such as that of a
-- node of a cluster whose slot is on its way to another one. Then nobody knows what is there.
local function holds_something_else(answer)
  if type(answer) ~= 'table' or not answer.err then
    return false
  end
  if not string.find(answer.err, 'WRONGTYPE', 1, true) then
    error(answer)
  end
  return true
end

-- Blobs in a list; -1 where the key holds something else.
local function list_length(key)
  local length = redis.pcall('LLEN', key)
  if holds_something_else(length) then
    return -1
  end
  return length
end

-- Fields of the head; all absent where the key holds something else, so that an install can replace it.
local function read_head(key, fields)
  local values = redis.pcall('HMGET', key, unpack(fields))
  if holds_something_else(values) then
    values = {}
    for i = 1, #fields do
      values[i] = false
    end
  end
  return values
end

-- a < b for 16 hex digits, in halves of 32 bits.
local function less(a, b)
  local a_high, b_high = tonumber(string.sub(a, 1, 8), 16), tonumber(string.sub(b, 1, 8), 16)
  if a_high ~= b_high then
    return a_high < b_high
  end
  return tonumber(string.sub(a, 9), 16) < tonumber(string.sub(b, 9), 16)
end

local function decimal(number)
  return string.format('%.0f', number)
end

local function well_formed(lane)
  return #lane == LANE_LENGTH and string.find(lane, '^%x+:%x+:%x+$') ~= nil
      and string.sub(lane, 17, 17) == ':' and string.sub(lane, 34, 34) == ':'
end

-- Writes field, value, field, value, … in calls of bounded size.
local function write_fields(key, pairs_to_write)
  for i = 1, #pairs_to_write, FIELDS_MAX do
    redis.call('HSET', key, unpack(pairs_to_write, i, math.min(i + FIELDS_MAX - 1, #pairs_to_write)))
  end
end

local function delete_fields(key, fields)
  for i = 1, #fields, FIELDS_MAX do
    redis.call('HDEL', key, unpack(fields, i, math.min(i + FIELDS_MAX - 1, #fields)))
  end
end

-- Milliseconds by this server's clock.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- revision: which text of this library the server has.
-- KEYS none. ARGV none. Answers the number.
local function revision()
  return REVISION
end

-- apply: appends one blob to the open batch and moves the lanes it extends.
-- KEYS 1 head, 2 list of batch k.
-- ARGV 1 g, 2 k, 3 most blobs in a batch, 4 blob, 5 its checksum (16 hex), 6 dictionary (16 hex),
--      7 names that dictionary has defined in this batch before, 8 names this blob defines, then for each lane:
--      lane, epoch, from-1:chain before, to:chain after.
-- Checks: 1 GENERATION g'  2 BATCH o  3 DAMAGED n length, FULL n  4 NAMES defined
--         then all lanes: 5 ATTACH  6 FENCED  7 SEQUENCE (a gap or a repetition)  8 DIVERGED,
--         answered together as LANES (place, word, stored)… with the place counted from 0.
-- OK n
local function apply(keys, args)
  local fields = { 'g', 'o', 'n', 'f', 'd:' .. args[6] }
  for i = 9, #args, 4 do
    fields[#fields + 1] = 'p:' .. args[i]
  end
  local head = read_head(keys[1], fields)
  if head[1] ~= args[1] then
    return { 'GENERATION', head[1] or '' }
  end
  if head[2] ~= args[2] then
    return { 'BATCH', head[2] or '' }
  end
  local count, length = tonumber(head[3] or ''), list_length(keys[2])
  if count ~= length or not head[4] then
    return { 'DAMAGED', head[3] or '', length }
  end
  if count >= tonumber(args[3]) then
    return { 'FULL', decimal(count) }
  end
  if (head[5] or '0') ~= args[7] then
    return { 'NAMES', head[5] or '0' }
  end
  local refused = { 'LANES' }
  local write = {}
  for i = 9, #args, 4 do
    local place = (i - 9) / 4
    local stored, epoch, before = head[6 + place], args[i + 1], args[i + 2]
    local word
    if not stored then
      word, stored = 'ATTACH', ''
    elseif not well_formed(stored) then
      return { 'DAMAGED', stored, length }
    else
      local stored_epoch = string.sub(stored, 1, 16)
      if stored_epoch ~= epoch and less(epoch, stored_epoch) then
        word = 'FENCED'
      elseif string.sub(stored, 18, 33) ~= string.sub(before, 1, 16) then
        word = 'SEQUENCE'
      elseif string.sub(stored, 35) ~= string.sub(before, 18) then
        word = 'DIVERGED'
      end
    end
    if word then
      refused[#refused + 1], refused[#refused + 2], refused[#refused + 3] = place, word, stored
    end
    -- An epoch that was not refused is the greater of the two.
    write[#write + 1] = 'p:' .. args[i]
    write[#write + 1] = epoch .. ':' .. args[i + 3]
  end
  if #refused > 1 then
    return refused
  end
  write[#write + 1] = 'n'
  write[#write + 1] = decimal(count + 1)
  write[#write + 1] = 'f'
  write[#write + 1] = redis.sha1hex(head[4] .. ':' .. args[5])
  write[#write + 1] = 'd:' .. args[6]
  write[#write + 1] = decimal(tonumber(args[7]) + tonumber(args[8]))
  redis.call('RPUSH', keys[2], struct.pack('>I4', count) .. args[4])
  write_fields(keys[1], write)
  return { 'OK', decimal(count + 1) }
end

-- attach: makes lanes known, at their settled position; a known lane keeps its position, and is in use.
-- The caller knew g and r before it asked where the lanes are settled: a lane that is absent was absent ever since.
-- KEYS 1 head.
-- ARGV 1 g, 2 r, then for each lane: lane, epoch, settled:chain.
-- Checks: 1 GENERATION g'  2 ROLL r'  3 DAMAGED lane
-- OK (epoch:applied:chain, or WAIT, or ASIDE)… in the order asked
local function attach(keys, args)
  local fields = { 'g', 'r', 'x' }
  for i = 3, #args, 3 do
    fields[#fields + 1] = 'p:' .. args[i]
    fields[#fields + 1] = 'y:' .. args[i]
  end
  local head = read_head(keys[1], fields)
  if head[1] ~= args[1] then
    return { 'GENERATION', head[1] or '' }
  end
  if (head[2] or FIRST_ROLL) ~= args[2] then
    return { 'ROLL', head[2] or FIRST_ROLL }
  end
  local answer, write, marks = { 'OK' }, {}, {}
  for i = 3, #args, 3 do
    local place = 4 + 2 * (i - 3) / 3
    local stored, epoch = head[place], args[i + 1]
    local lane = stored
    marks[#marks + 1] = 'i:' .. args[i]
    if not stored and head[place + 1] then
      lane, stored = 'ASIDE', 'ASIDE'
    elseif not stored and head[3] and head[3] ~= args[i] then
      lane, stored = 'WAIT', 'WAIT'
    elseif not stored then
      lane = epoch .. ':' .. args[i + 2]
    elseif not well_formed(stored) then
      return { 'DAMAGED', stored }
    elseif less(string.sub(stored, 1, 16), epoch) then
      lane = epoch .. string.sub(stored, 17)
    end
    answer[#answer + 1] = lane
    if lane ~= stored then
      write[#write + 1] = 'p:' .. args[i]
      write[#write + 1] = lane
    end
  end
  write_fields(keys[1], write)
  delete_fields(keys[1], marks)
  return answer
end

-- retire_lanes: drops lanes that have stood where they are settled for long; marks those that have begun to.
-- KEYS 1 head.
-- ARGV 1 g, 2 r, 3 the next r, 4 how long in ms, then for each lane: lane, epoch:applied:chain as seen and settled.
-- Checks: 1 GENERATION g'  2 ROLL r'; a lane that is not what was seen is left alone
-- OK retired
local function retire_lanes(keys, args)
  local head = read_head(keys[1], { 'g', 'r' })
  if head[1] ~= args[1] then
    return { 'GENERATION', head[1] or '' }
  end
  if (head[2] or FIRST_ROLL) ~= args[2] then
    return { 'ROLL', head[2] or FIRST_ROLL }
  end
  local now, longest = now_ms(), tonumber(args[4])
  local write, dropped = {}, {}
  for first = 5, #args, FIELDS_MAX do
    local last, fields = math.min(first + FIELDS_MAX - 1, #args), {}
    for i = first, last, 2 do
      fields[#fields + 1], fields[#fields + 2] = 'p:' .. args[i], 'i:' .. args[i]
    end
    local stored = read_head(keys[1], fields)
    for i = first, last, 2 do
      local lane, mark = stored[i - first + 1], stored[i - first + 2]
      if lane == args[i + 1] then
        local applied = string.sub(lane, 18, 33)
        local since, there = string.match(mark or '', '^(%d+):(%x+)$')
        since = tonumber(since or '')
        if there ~= applied or since > now then
          write[#write + 1], write[#write + 2] = 'i:' .. args[i], decimal(now) .. ':' .. applied
        elseif now - since >= longest then
          dropped[#dropped + 1], dropped[#dropped + 2] = 'p:' .. args[i], 'i:' .. args[i]
        end
      end
    end
  end
  if #dropped > 0 then
    write[#write + 1], write[#write + 2] = 'r', args[3]
  end
  write_fields(keys[1], write)
  delete_fields(keys[1], dropped)
  return { 'OK', decimal(#dropped / 2) }
end

-- keep_lanes: renews the marks of lanes that streams have.
-- KEYS 1 head.
-- ARGV 1 g, then lanes.
-- Checks: 1 GENERATION g'
-- OK
local function keep_lanes(keys, args)
  local fields = { 'g' }
  for i = 2, #args do
    fields[i] = 'p:' .. args[i]
  end
  local head = read_head(keys[1], fields)
  if head[1] ~= args[1] then
    return { 'GENERATION', head[1] or '' }
  end
  local now, write = decimal(now_ms()), {}
  for i = 2, #args do
    if head[i] then
      write[#write + 1], write[#write + 2] = 'i:' .. args[i], now .. ':' .. string.sub(head[i], 18, 33)
    end
  end
  write_fields(keys[1], write)
  return { 'OK' }
end

-- seal: closes the open batch; nothing is appended to it any more.
-- KEYS 1 head, 2 list of batch k.
-- ARGV 1 g, 2 k, 3 most sealed batches that are not retired.
-- Checks: 1 GENERATION g'  BATCH o  2 EMPTY  3 DAMAGED n length  4 CAP sealed
-- OK count:fingerprint
local function seal(keys, args)
  local head = read_head(keys[1], { 'g', 'o', 'b', 'n', 'f' })
  if head[1] ~= args[1] then
    return { 'GENERATION', head[1] or '' }
  end
  if head[2] ~= args[2] then
    return { 'BATCH', head[2] or '' }
  end
  local open, retired, count = tonumber(head[2]), tonumber(head[3] or ''), tonumber(head[4] or '')
  local length = list_length(keys[2])
  if count == 0 and length == 0 then
    return { 'EMPTY' }
  end
  if count ~= length or not open or not retired or not head[5] then
    return { 'DAMAGED', head[4] or '', length }
  end
  if open - retired - 1 >= tonumber(args[3]) then
    return { 'CAP', decimal(open - retired - 1) }
  end
  local dictionaries = {}
  for _, field in ipairs(redis.call('HKEYS', keys[1])) do
    if string.sub(field, 1, 2) == 'd:' then
      dictionaries[#dictionaries + 1] = field
    end
  end
  local sealed = head[4] .. ':' .. head[5]
  redis.call('HSET', keys[1], 's:' .. head[2], sealed, 'o', decimal(open + 1), 'n', '0', 'f', '0')
  delete_fields(keys[1], dictionaries)
  return { 'OK', sealed }
end

-- retire: forgets a sealed batch that the ledger has settled.
-- KEYS 1 head, 2 list of batch k.
-- ARGV 1 g, 2 k, 3 count:fingerprint that was posted.
-- Checks: 1 GENERATION g'  2 BATCH b o  3 the same  4 FINGERPRINT stored
-- OK
local function retire(keys, args)
  local head = read_head(keys[1], { 'g', 'b', 'o', 's:' .. args[2] })
  if head[1] ~= args[1] then
    return { 'GENERATION', head[1] or '' }
  end
  local batch, retired, open = tonumber(args[2]), tonumber(head[2] or ''), tonumber(head[3] or '')
  if not retired or not open or batch ~= retired + 1 or batch >= open then
    return { 'BATCH', head[2] or '', head[3] or '' }
  end
  if head[4] ~= args[3] then
    return { 'FINGERPRINT', head[4] or '' }
  end
  redis.call('HSET', keys[1], 'b', args[2])
  redis.call('HDEL', keys[1], 's:' .. args[2])
  redis.call('UNLINK', keys[2])
  return { 'OK' }
end

-- install: replaces the head after a reset; what the old generation held is sent again by the producers. The new one has
-- no lanes: they are attached.
-- KEYS 1 head, then lists of the generation seen, to be dropped.
-- ARGV 1 generation seen ('' where the head was absent), 2 g, 3 layout, 4 last settled batch,
--      5 the batch after it, 6 the only lane that may be attached anew ('' for any), 7 how many lanes are set
--      aside, those lanes.
-- Checks: 1 GENERATION g'
-- OK
local function install(keys, args)
  local head = read_head(keys[1], { 'g' })
  if (head[1] or '') ~= args[1] then
    return { 'GENERATION', head[1] or '' }
  end
  local write = { 'g', args[2], 'v', args[3], 'b', args[4], 'o', args[5], 'n', '0', 'f', '0' }
  if args[6] ~= '' then
    write[#write + 1] = 'x'
    write[#write + 1] = args[6]
  end
  for i = 8, 7 + tonumber(args[7]) do
    write[#write + 1], write[#write + 2] = 'y:' .. args[i], '1'
  end
  for _, key in ipairs(keys) do
    redis.call('UNLINK', key)
  end
  write_fields(keys[1], write)
  return { 'OK' }
end

-- look: the whole head and the true length of the open list, at one instant. Writes nothing.
-- KEYS 1 head. The list's key is derived from the head's own g and o; it has the head's hash tag.
-- ARGV none.
-- Answers (field, value)… of the head, then the length: two lists in one. An absent head is an empty list.
local function look(keys)
  local head = redis.pcall('HGETALL', keys[1])
  local flat = {}
  if holds_something_else(head) then
    return { flat, 0 }
  end
  local fields = head.map or head
  local generation, open
  for i = 1, #fields, 2 do
    flat[i], flat[i + 1] = fields[i], fields[i + 1]
    if fields[i] == 'g' then
      generation = fields[i + 1]
    elseif fields[i] == 'o' then
      open = fields[i + 1]
    end
  end
  if not generation or not open then
    return { flat, 0 }
  end
  return { flat, list_length(string.sub(keys[1], 1, -2) .. 'b:' .. generation .. ':' .. open) }
end

-- sweep: drops lists that nothing can read any more: of another generation, or retired.
-- KEYS 1 head, then lists. ARGV for each list: its generation, its batch.
-- Checks: 1 GENERATION '' where there is no head to compare with
-- OK dropped
local function sweep(keys, args)
  local head = read_head(keys[1], { 'g', 'b' })
  if not head[1] then
    return { 'GENERATION', '' }
  end
  local retired, dropped = tonumber(head[2] or '') or 0, 0
  for i = 2, #keys do
    local generation, batch = args[2 * i - 3], tonumber(args[2 * i - 2])
    if generation ~= head[1] or batch <= retired then
      dropped = dropped + redis.call('UNLINK', keys[i])
    end
  end
  return { 'OK', decimal(dropped) }
end

-- lease: who looks at a shard. It spares work; no other function asks for it.
-- KEYS 1 the lease, a string token:end with the end in ms by this server's clock.
-- ARGV 1 token, 2 life in ms, 3 keep, see or leave.
-- OURS where the lease is the token's then, OTHERS where it is another one's, FREE
local function lease(keys, args)
  local stored = redis.pcall('GET', keys[1])
  local now, wish = now_ms(), args[3]
  local holder, ends
  if not holds_something_else(stored) and stored then
    holder, ends = string.match(stored, '^(%x+):(%d+)$')
  end
  if holder and tonumber(ends) <= now then
    holder = nil
  end
  if holder and holder ~= args[1] then
    return { 'OTHERS' }
  end
  if wish == 'leave' then
    redis.call('UNLINK', keys[1])
    return { 'FREE' }
  end
  if wish == 'see' then
    return { holder and 'OURS' or 'FREE' }
  end
  redis.call('SET', keys[1], args[1] .. ':' .. decimal(now + tonumber(args[2])))
  return { 'OURS' }
end

-- workers: who is there.
-- KEYS 1 a sorted set of tokens, by the time until which they are believed to be there.
-- ARGV 1 token, 2 life in ms; 0 where it goes.
-- OK token…
local function workers(keys, args)
  local now = now_ms()
  if args[2] == '0' then
    redis.call('ZREM', keys[1], args[1])
  else
    redis.call('ZADD', keys[1], decimal(now + tonumber(args[2])), args[1])
  end
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', '(' .. decimal(now))
  local answer = { 'OK' }
  for _, token in ipairs(redis.call('ZRANGE', keys[1], 0, -1)) do
    answer[#answer + 1] = token
  end
  return answer
end

-- Where memory has run out what adds to it is refused, and what makes room is not: usage that is there settles.
local function makes_room(name, callback)
  redis.register_function { function_name = name, callback = callback, flags = { 'allow-oom' } }
end

redis.register_function { function_name = 'drawdown_v1_revision', callback = revision, flags = { 'no-writes' } }
redis.register_function('drawdown_v1_apply', apply)
redis.register_function('drawdown_v1_attach', attach)
makes_room('drawdown_v1_retire_lanes', retire_lanes)
redis.register_function('drawdown_v1_keep_lanes', keep_lanes)
makes_room('drawdown_v1_seal', seal)
makes_room('drawdown_v1_retire', retire)
makes_room('drawdown_v1_install', install)
redis.register_function { function_name = 'drawdown_v1_look', callback = look, flags = { 'no-writes' } }
makes_room('drawdown_v1_sweep', sweep)
makes_room('drawdown_v1_lease', lease)
makes_room('drawdown_v1_workers', workers)
