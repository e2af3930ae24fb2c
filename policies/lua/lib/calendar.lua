-- The calendar of UTC in integers, after Howard Hinnant, "chrono-Compatible Low-Level Date
-- Algorithms": years begin in March, so that the leap day is the last of its year.

-- month_begin_ms(year, month 1 .. 13): when a month begins, in milliseconds since 1970.
local function month_begin_ms(year, month)
  local floor = math.floor
  if month < 3 then year, month = year - 1, month + 12 end
  local days = 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400)
    + floor((153 * (month - 3) + 2) / 5)
  return (days - 719468) * 86400000
end

-- month_end_ms(now_ms): when the month of a time ends, in milliseconds since 1970.
local function month_end_ms(now_ms)
  local floor = math.floor
  local days = floor(now_ms / 86400000) + 719468
  local day_of_era = days % 146097 -- an era is 400 years
  local year_of_era = floor((day_of_era - floor(day_of_era / 1460) + floor(day_of_era / 36524)
    - floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era
    - (365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100))
  local year = year_of_era + (days - day_of_era) / 146097 * 400
  -- Months from March: 0 .. 11, so the one after this is 4 .. 15 of this year.
  local month = floor((5 * day_of_year + 2) / 153) + 4
  if month > 13 then return month_begin_ms(year + 1, month - 12) end
  return month_begin_ms(year, month)
end

-- billing_end_ms(now_ms, end of this billing period, end of the next): when the window of what is
-- counted by billing period ends. Without ends (nil), or after both, it is the calendar month.
local function billing_end_ms(now_ms, end_ms, next_end_ms)
  if end_ms and now_ms < end_ms then return end_ms end
  if next_end_ms and now_ms < next_end_ms then return next_end_ms end
  return month_end_ms(now_ms)
end
