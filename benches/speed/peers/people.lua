-- For wrk: asks for PEOPLE people one after the other, from number OFFSET on, at the path PLACE, as person(number)
-- of the bench names them.

local people = tonumber(os.getenv("PEOPLE"))
local number = tonumber(os.getenv("OFFSET"))
local place = os.getenv("PLACE")

function request()
    local path = string.format(place, number % people)
    number = number + 1
    return wrk.format("GET", path)
end
