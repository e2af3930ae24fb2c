-- month_end_ms(now_ms): when the calendar month (UTC) of a time ends, in milliseconds since 1970.
-- Integers only; after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", whose years
-- begin in March so that the leap day is the last.
local function month_end_ms(now_ms)
  local floor = math.floor
  local day_of_era = (floor(now_ms / 86400000) + 719468) % 146097
  local era_begin = floor(now_ms / 86400000) + 719468 - day_of_era
  local year_of_era = floor((day_of_era - floor(day_of_era / 1460) + floor(day_of_era / 36524)
    - floor(day_of_era / 146096)) / 365)
  local year_begin = 365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100)
  local month = floor((5 * (day_of_era - year_begin) + 2) / 153)
  if month < 11 then
    return (era_begin + year_begin + floor((153 * (month + 1) + 2) / 5) - 719468) * 86400000
  end
  -- February ends where the next year begins; an era of 400 years has one day more than the rule.
  year_of_era = year_of_era + 1
  year_begin = 365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100)
    + floor(year_of_era / 400)
  return (era_begin + year_begin - 719468) * 86400000
end
