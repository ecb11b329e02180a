-- flags: allow-oom
-- parts:
-- Reserves slots that several limits allow, or gives the last of them back. GCRA, several keys at once: slot after slot
-- takes the earliest moment that every key allows, and every key moves on from there.
--
-- ARGV[1]  reserve or give_back
-- ARGV[2]  the call's id: a repeated reservation returns the same slots; give_back names the reservation's
-- ARGV[3]  count
-- ARGV[4]  microseconds that the reservation can be given back after its last slot
-- ARGV[5]  microseconds from now before which no slot is given
-- ARGV[6...]  of each limit: key, rate a second, burst
-- reserve returns {moment of the first possible slot in microseconds of Unix time, slots in microseconds from then,
-- with spaces};
-- give_back returns 1 when the slots are free again, 0 when someone reserved after them.
local record, count = NS .. 'slots:' .. ARGV[2], tonumber(ARGV[3])
local unix_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limits = {}
for i = 6, #ARGV, 3 do
  local interval = 1000000 / tonumber(ARGV[i + 1])
  limits[#limits + 1] = { key = NS .. 'tat:' .. ARGV[i], interval = interval, tolerance = (tonumber(ARGV[i + 2]) - 1) * interval }
end

-- Moments are microseconds after `start`, an integer, so that fractions of intervals keep their precision.
local function run(n, tats)
  local slots, slot = {}, 0
  for i = 1, n do
    for k, limit in ipairs(limits) do
      slot = math.max(slot, tats[k] - limit.tolerance)
    end
    for k, limit in ipairs(limits) do
      tats[k] = math.max(tats[k], slot) + limit.interval
    end
    slots[i] = string.format('%.3f', slot)
  end
  return slots, slot
end

-- A tat is kept as whole microseconds, rounded up: never early.
local function write(start, tats)
  for k, limit in ipairs(limits) do
    local tat = start + math.ceil(tats[k])
    call('SET', limit.key, integer(tat), 'PX', math.max(1, math.ceil((tat - unix_us) / 1000)))
  end
end

local function read_record()
  local numbers = {}
  for number in string.gmatch(call('GET', record) or '', '%S+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  return numbers[1], numbers[2], { unpack(numbers, 3) }
end

local start, reserved, tats = read_record()

if ARGV[1] == 'reserve' then
  if not start then
    start, reserved, tats = unix_us + tonumber(ARGV[5]), count, {}
    for k, limit in ipairs(limits) do
      tats[k] = math.max(0, tonumber(call('GET', limit.key) or '0') - start)
    end
    local text = integer(start) .. ' ' .. reserved
    for _, tat in ipairs(tats) do
      text = text .. ' ' .. integer(tat)
    end
    local slots, last = run(count, tats)
    write(start, tats)
    call('SET', record, text, 'PX', math.ceil((last + tonumber(ARGV[4])) / 1000))
    return { integer(start), table.concat(slots, ' ') }
  end
  return { integer(start), table.concat((run(reserved, tats)), ' ') }
end

if not start or count > reserved or #tats ~= #limits then
  return 0
end
local after = { unpack(tats) }
run(reserved, after)
for k, limit in ipairs(limits) do
  if tonumber(call('GET', limit.key) or '0') ~= start + math.ceil(after[k]) then
    return 0
  end
end
local text = integer(start) .. ' ' .. (reserved - count)
for _, tat in ipairs(tats) do
  text = text .. ' ' .. integer(tat)
end
run(reserved - count, tats)
write(start, tats)
call('SET', record, text, 'KEEPTTL')
return 1
