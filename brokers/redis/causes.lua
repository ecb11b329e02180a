-- flags: no-writes
-- parts:
-- Counts some of the dead letters of a queue by actor and cause.
--
-- ARGV[1]  queue
-- ARGV[2]  rank of the first
-- ARGV[3]  how many
-- Returns {how many were looked at, {{actor, code, count, first death, last death}, ...}}.
local from, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local rows = call('ZRANGE', NS .. 'dead:' .. ARGV[1], from, from + most - 1, 'WITHSCORES')
local ids, causes, found = {}, {}, {}
for i = 1, #rows, 2 do
  ids[#ids + 1] = rows[i]
end
for n, why in ipairs(get_many(NS .. 'why', ids)) do
  local actor, code = string.match(why or '', '^([^\n]*)\n([^\n]*)\n')
  local name = (actor or '') .. '\n' .. (code or '')
  if not found[name] then
    found[name] = { actor or '', code or '', 0, rows[2 * n], rows[2 * n] }
    causes[#causes + 1] = found[name]
  end
  local cause = found[name]
  cause[3], cause[5] = cause[3] + 1, rows[2 * n]
end
return { #ids, causes }
