-- flags:
-- parts: line
-- Stores messages, all or none: it does not begin when the server is out of memory.
--
-- ARGV[1]  header: count, then for each message: id queue priority when group length
-- ARGV[2]  the bodies, one after the other
-- ARGV[3...]  pairs: group, its callbacks (a header that begins with their count, a line feed, their bodies)
-- Returns how many were new. A message that is in the store, or ended within minutes, is left alone.
for i = 3, #ARGV, 2 do
  if call('HEXISTS', NS .. 'groups', ARGV[i]) == 1 then
    call('HSETNX', NS .. 'callbacks', ARGV[i], ARGV[i + 1])
  end
end
local word, bytes = reader(ARGV[1], ARGV[2])
local new = store_many(tonumber(word()), word, bytes)
commit()
return new
