-- The part of gwctl's routing program that has to loop: rules with conditions, and backends by weight.
-- Loaded once per thread. It holds no state but what it has parsed: rows are immutable, so a parsed row stays right.
--
--   group row   rule '&' rule ...       rules in the order of precedence, the first that fits takes the request
--   rule        conditions '?' entry    conditions joined by '+'; none: always fits
--   condition   m:METHOD | p~REGEX | h:NAME:VALUE | h~NAME:REGEX | q:NAME:VALUE | q~NAME:REGEX  (percent-encoded)
--   target      '*' WEIGHT ':' SHARE '+' WEIGHT ':' SHARE ...
--   share       SERVICE, or SERVICE '@' FILTERS where its filters are not those of its rule

local groups = Map.new("@GROUPS@", Map._str)
local paths_prefix = Map.new("@PATHS_PREFIX@", Map._beg)

local CACHE_LIMIT = 10000

local function cache(parse)
    local held, count = {}, 0
    return function(text)
        local value = held[text]
        if value == nil then
            if count >= CACHE_LIMIT then held, count = {}, 0 end
            value = parse(text)
            held[text], count = value, count + 1
        end
        return value
    end
end

local function decode(text)
    return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function split(text, separator)
    local parts = {}
    for part in (text .. separator):gmatch("(.-)" .. separator:gsub("%p", "%%%0")) do parts[#parts + 1] = part end
    return parts
end

-- A regular expression applies to the whole of one value and sees nothing beyond it. One that goes astray (as
-- '(a+)+[bc]' does) fits nothing, and lets HAProxy do other work from time to time: it kills itself when it cannot.
local MATCH_LIMIT = 1000000
local MATCHES_AT_ONCE = 32
local matches = 0

local function regex(pattern)
    local ok, compiled = Regex.new("(*LIMIT_MATCH=" .. MATCH_LIMIT .. ")\\A(?:" .. pattern .. ")\\z", true)
    if not ok then
        core.Warning("gwctl: HAProxy does not compile a regular expression: " .. tostring(compiled))
        return function() return false end
    end
    return function(value)
        matches = matches + 1
        if matches % MATCHES_AT_ONCE == 0 then core.yield() end
        return compiled:match(value)
    end
end

local function equals(wanted)
    return function(value) return value == wanted end
end

local function parse_condition(text)
    local source, operator, rest = text:sub(1, 1), text:sub(2, 2), text:sub(3)
    local name
    if source == "h" or source == "q" then
        local head, tail = rest:match("^(.-):(.*)$")
        name, rest = decode(head), tail
    end
    local value = decode(rest)
    return { source = source, name = name, fits = operator == "~" and regex(value) or equals(value) }
end

local parse_group = cache(function(text)
    local rules = {}
    for _, rule in ipairs(split(text, "&")) do
        local conditions, entry = rule:match("^(.-)%?(.*)$")
        local parsed = {}
        if conditions ~= "" then
            for _, condition in ipairs(split(conditions, "+")) do parsed[#parsed + 1] = parse_condition(condition) end
        end
        rules[#rules + 1] = { conditions = parsed, entry = entry }
    end
    return rules
end)

local parse_target = cache(function(text)
    local total, ends, shares = 0, {}, {}
    for _, part in ipairs(split(text:sub(2), "+")) do
        local weight, share = part:match("^(%d+):(.*)$")
        local service, filters = share:match("^([^@]*)@?(.*)$")
        total = total + tonumber(weight)
        ends[#ends + 1], shares[#shares + 1] = total, { service = service, filters = filters }
    end
    return { total = total, ends = ends, shares = shares }
end)

local function query_decode(text)
    return decode((text:gsub("+", " ")))
end

-- The first of equal names counts.
local function parse_query(query)
    local parameters = {}
    if query then
        for part in query:gmatch("[^&]+") do
            local name, value = part:match("^(.-)=(.*)$")
            name, value = query_decode(name or part), query_decode(value or "")
            if parameters[name] == nil then parameters[name] = value end
        end
    end
    return parameters
end

-- Several lines of one header are one value, joined by commas (RFC 9110, section 5.3).
local function join_header(lines)
    if lines == nil then return nil end
    local value, index = lines[0], 1
    while lines[index] ~= nil do
        value, index = value .. "," .. lines[index], index + 1
    end
    return value
end

local function request_of(txn)
    local headers, query
    return function(condition)
        local source = condition.source
        if source == "m" then return txn.sf:method() end
        if source == "p" then return txn.sf:path() end
        if source == "h" then
            headers = headers or txn.http:req_get_headers()
            return join_header(headers[condition.name])
        end
        query = query or parse_query(txn.f:query())
        return query[condition.name]
    end
end

local function find(rules, value_of)
    for _, rule in ipairs(rules) do
        local fits = true
        for _, condition in ipairs(rule.conditions) do
            local value = value_of(condition)
            if value == nil or not condition.fits(value) then
                fits = false
                break
            end
        end
        if fits then return rule.entry end
    end
    return nil
end

-- Replaces txn.entry, the name of a group ('~ID' or '~ID>KEY'), by the entry of its first rule that fits. An entry may
-- be a group again. Where none fits, the row at KEY, a shorter prefix, is next; after that txn.entry is unset.
core.register_action("gwctl_match", { "http-req" }, function(txn)
    local value_of = request_of(txn)
    local entry, shorter = txn:get_var("txn.entry"), ""
    while entry ~= nil and entry:sub(1, 1) == "~" do
        local id, key = entry:match("^~([^>]*)>?(.*)$")
        if key ~= "" then shorter = key end
        local row = groups:lookup(id)
        entry = row and find(parse_group(row), value_of)
        if entry == nil and shorter ~= "" then entry, shorter = paths_prefix:lookup(shorter), "" end
    end
    if entry == nil then
        txn:unset_var("txn.entry")
    else
        txn:set_var("txn.entry", entry)
    end
end)

-- Replaces txn.target, services with weights, by one of them, and txn.filters by its own where it has any.
core.register_action("gwctl_pick", { "http-req", "tcp-req" }, function(txn)
    local target = parse_target(txn:get_var("txn.target"))
    local number = math.random(target.total)
    local index = 1
    while number > target.ends[index] do index = index + 1 end
    local share = target.shares[index]
    txn:set_var("txn.target", share.service)
    if share.filters ~= "" then txn:set_var("txn.filters", share.filters) end
end)
