-- The UTC calendar in integers (Howard Hinnant, "chrono-compatible low-level date algorithms").

-- month_of(seconds since 1970): the month as yyyymm.
local function month_of(now_s)
  local days = (now_s - now_s % 86400) / 86400 + 719468
  local day_of_era = days % 146097
  local era = (days - day_of_era) / 146097
  local floor = math.floor
  local year_of_era = floor((day_of_era - floor(day_of_era / 1460) + floor(day_of_era / 36524)
    - floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100))
  local march_month = floor((5 * day_of_year + 2) / 153)
  local year = year_of_era + era * 400
  if march_month < 10 then return year * 100 + march_month + 3 end
  return (year + 1) * 100 + march_month - 9
end

-- month_end_s(yyyymm): when the next month begins, in seconds since 1970.
local function month_end_s(month)
  local month_of_year = month % 100
  local year = (month - month_of_year) / 100
  local march_month = (month_of_year + 10) % 12 -- of the month after this one, counted from March
  if month_of_year == 12 then year = year + 1 end
  if march_month >= 10 then year = year - 1 end
  local floor = math.floor
  local year_of_era = year % 400
  local era = (year - year_of_era) / 400
  local day_of_year = floor((153 * march_month + 2) / 5)
  local day_of_era = year_of_era * 365 + floor(year_of_era / 4) - floor(year_of_era / 100) + day_of_year
  return (era * 146097 + day_of_era - 719468) * 86400
end
