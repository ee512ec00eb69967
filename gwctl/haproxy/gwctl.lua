-- The part of gwctl's routing program that has to loop: rules with conditions, and backends by weight.
-- Loaded once per thread. It holds no state but what it has parsed (rows are immutable, so a parsed row stays right), the
-- workers that send copies, and how many questions there are.
--
--   group row   rule '&' rule ...       rules in the order of precedence, the first that fits takes the request
--   rule        conditions '?' entry    conditions joined by '+'; none: always fits
--   condition   m:METHOD | c:METHOD (a CORS preflight for it fits too) | p~REGEX | h:NAME:VALUE | h~NAME:REGEX | q:NAME:VALUE | q~NAME:REGEX  (percent-encoded)
--   target      '*' WEIGHT ':' SHARE '+' WEIGHT ':' SHARE ...; with sessions '*' SESSION '>' WEIGHT ...
--   session     c|p|h (a cookie, a permanent one, a header) ':' NAME ':' SECONDS
--   share       SERVICE, or SERVICE '@' FILTERS where its filters are not those of its rule
--   mirrors row NUMERATOR '/' DENOMINATOR ':' SHARE '+' ...
--   auths row   SERVICE ':' PATH ':' HEADERS ':' ANSWER HEADERS '+' ...; lists joined by '&', percent-encoded; '!' for no Service
--   cors row    origins|credentials|methods|headers|exposed headers|max age; lists joined by '+', percent-encoded

local groups = Map.new("@GROUPS@", Map._str)
local services = Map.new("@SERVICES@", Map._str)
local paths_prefix = Map.new("@PATHS_PREFIX@", Map._beg)
local sni = Map.new("@SNI@", Map._str)

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
    if source == "c" then
        return { source = source, fits = function(methods) return methods[1] == value or methods[2] == value end }
    end
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
    local total, totals, shares = 0, {}, {}
    local session, weights = text:match("^%*([^>]*)>(.*)$")
    for _, part in ipairs(split(weights or text:sub(2), "+")) do
        local weight, share = part:match("^(%d+):(.*)$")
        local service, filters = share:match("^([^@]*)@?(.*)$")
        weight = tonumber(weight)
        total, totals[service] = total + weight, (totals[service] or 0) + weight
        shares[#shares + 1] = { weight = weight, service = service, filters = filters }
    end
    return { total = total, totals = totals, shares = shares, session = session }
end)

-- Gives a share by weight, of those of a Service alone where one is given.
local function pick_share(target, service)
    local number = math.random(service and target.totals[service] or target.total)
    for _, share in ipairs(target.shares) do
        if service == nil or share.service == service then
            number = number - share.weight
            if number <= 0 then return share end
        end
    end
end

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

-- The method that a CORS preflight asks about, nil for other requests (Fetch, "CORS-preflight request").
local function preflight_method(txn, headers)
    if txn.sf:method() ~= "OPTIONS" or headers["origin"] == nil then return nil end
    local method = join_header(headers["access-control-request-method"])
    return method ~= "" and method or nil
end

local function request_of(txn)
    local headers, query
    return function(condition)
        local source = condition.source
        if source == "m" then return txn.sf:method() end
        if source == "p" then return txn.sf:path() end
        if source == "h" or source == "c" then headers = headers or txn.http:req_get_headers() end
        if source == "h" then return join_header(headers[condition.name]) end
        if source == "c" then return { txn.sf:method(), preflight_method(txn, headers) } end
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
-- be a group again. Where none fits, the row of the longest prefix at or above KEY is next; after that txn.entry is unset.
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

-- Sessions. A client is given a token that names its server, by a hash of the Service's key and the server's name; what it
-- sends back counts only where it names a server of one of the rule's own Services. So there is nothing to remember:
-- another replica, and this HAProxy when it has started anew, finds the same server.
local parse_session = cache(function(text)
    local kind, name, seconds = text:match("^(.):([^:]*):(%d*)$")
    name = decode(name)
    return { kind = kind, name = name, header = name:lower(), seconds = tonumber(seconds) }
end)

-- What an id stands for never changes, so it is searched for once.
local ids, servers_of, ids_count = {}, {}, 0

local function server_id(txn, service, server)
    local text = service .. "|" .. server
    local id = ids[text]
    if id == nil then
        if ids_count >= CACHE_LIMIT then ids, servers_of, ids_count = {}, {}, 0 end
        id = txn.sc:hex(txn.sc:sha2(text, 256)):sub(1, 20):lower()
        ids[text], servers_of[id], ids_count = id, { service = service, name = server }, ids_count + 1
    end
    return id
end

local function sent_token(txn, session)
    if session.kind ~= "h" then return txn.sf:req_cook(session.name) end
    return join_header(txn.http:req_get_headers()[session.header]) or ""
end

-- Gives the Service and the server's name that a request's token stands for, nil where it stands for none.
local function find_session(txn, target)
    local session = parse_session(target.session)
    local id, ends = sent_token(txn, session):match("^(%x+)%.?(%x*)$")
    if id == nil or #id ~= 20 then return nil end
    if session.seconds ~= nil and (tonumber(ends, 16) or 0) <= core.now().sec then return nil end
    local known = servers_of[id]
    for _, share in ipairs(target.shares) do
        local backend = core.backends[services:lookup(share.service) or ""]
        local servers = backend and backend.servers or {}
        if known ~= nil then
            if known.service == share.service and servers[known.name] ~= nil then return share.service, known.name end
        else
            for name in pairs(servers) do
                if server_id(txn, share.service, name) == id then return share.service, name end
            end
        end
    end
    return nil
end

-- Replaces txn.target, services with weights, by one of them, and txn.filters by its own where it has any. Where the
-- client has a session, it is its own Service, by weight where several shares have it, and txn.server is the server.
core.register_action("gwctl_pick", { "http-req", "tcp-req" }, function(txn)
    local target = parse_target(txn:get_var("txn.target"))
    local service, server
    if target.session then
        service, server = find_session(txn, target)
        txn:set_var("txn.session", target.session)
        if service then txn:set_var("txn.server", server) end
    end
    local share = pick_share(target, service)
    txn:set_var("txn.target", share.service)
    if share.filters ~= "" then txn:set_var("txn.filters", share.filters) end
end)

-- The row of the name in a handshake: by the exact name, then by ever shorter "*.suffix", then "*". Where it names an inner
-- frontend, the way there. In Lua because rules that wait for a handshake are written into each frontend: they must be few.
core.register_action("gwctl_name", { "tcp-req" }, function(txn)
    local frontend, name = txn.f:fe_name(), txn:get_var("txn.name") or ""
    local entry, suffix = sni:lookup(frontend .. "/" .. name), name
    while entry == nil do
        suffix = suffix:match("^[^.]*%.(.+)$")
        if suffix == nil then break end
        entry = sni:lookup(frontend .. "/_." .. suffix)
    end
    entry = entry or sni:lookup(frontend .. "/_")
    if entry == nil then return end
    txn:set_var("txn.entry", entry)
    local inner = entry:match("^@INNER_SIGN@(.*)$")
    if inner ~= nil then
        txn:set_var("txn.inner", inner)
        txn:set_var("txn.backend", frontend .. "@TO_INNER@" .. inner)
    end
end)

-- Gives a client the token of the server that has answered, where it has not got it already.
core.register_action("gwctl_session", { "http-res" }, function(txn)
    local server = txn.sf:srv_name()
    if server == "" or server == txn:get_var("txn.server") then return end
    local session = parse_session(txn:get_var("txn.session"))
    local token = server_id(txn, txn:get_var("txn.backend_service"), server)
    if session.seconds ~= nil then token = token .. string.format(".%x", core.now().sec + session.seconds) end
    if session.kind == "h" then
        txn.http:res_set_header(session.name, token)
        return
    end
    local cookie = session.name .. "=" .. token .. "; Path=/; HttpOnly; SameSite=Lax"
    if session.kind == "p" then cookie = cookie .. "; Max-Age=" .. session.seconds end
    if txn.sf:ssl_fc() == "1" then cookie = cookie .. "; Secure" end
    txn.http:res_add_header("set-cookie", cookie)
end)

local WELL_KNOWN_PORTS = { http = "80", https = "443" }

local function split_origin(origin)
    local scheme, rest = origin:lower():match("^(.-)://(.*)$")
    if scheme == nil then return "", origin:lower(), "" end
    local host, port = rest:match("^(.*):(%d+)$")
    return scheme, host or rest, port or WELL_KNOWN_PORTS[scheme] or ""
end

-- '*' stands for any number of characters, at least one, to the left of what follows it.
local function origin_matcher(wanted)
    if wanted == "*" then return function() return true end end
    local scheme, host, port = split_origin(wanted)
    local suffix = host:match("^%*(.*)$")
    return function(its_scheme, its_host, its_port)
        if its_scheme ~= scheme or its_port ~= port then return false end
        if suffix == nil then return its_host == host end
        return #its_host > #suffix and its_host:sub(#its_host - #suffix + 1) == suffix
    end
end

local parse_cors = cache(function(text)
    local fields = split(text, "|")
    local function list(field)
        local values = {}
        for _, value in ipairs(field == "" and {} or split(field, "+")) do values[#values + 1] = decode(value) end
        return values
    end
    local function joined(field) return table.concat(list(field), ", ") end
    local cors = {
        credentials = fields[2] == "1",
        methods = joined(fields[3]),
        headers = joined(fields[4]),
        exposed = joined(fields[5]),
        max_age = fields[6],
        origins = {},
    }
    cors.for_anyone = fields[1] == "*" and not cors.credentials
    for _, origin in ipairs(list(fields[1])) do cors.origins[#cors.origins + 1] = origin_matcher(origin) end
    return cors
end)

local function is_allowed(cors, origin)
    local scheme, host, port = split_origin(origin)
    for _, fits in ipairs(cors.origins) do
        if fits(scheme, host, port) then return true end
    end
    return false
end

-- Headers as HAProxy's set-headers-bin reads them: see `encode_headers` in encoding.py.
local function varint(number)
    if number < 240 then return string.char(number) end
    local out = { string.char(number & 0xFF | 0xF0) }
    number = (number - 240) >> 4
    while number >= 128 do
        out[#out + 1] = string.char(number & 0xFF | 0x80)
        number = (number - 128) >> 7
    end
    out[#out + 1] = string.char(number)
    return table.concat(out)
end

local function header_list(headers)
    local out = {}
    for _, header in ipairs(headers) do
        local name, value = header[1], header[2]
        if value and value ~= "" then out[#out + 1] = varint(#name) .. name .. varint(#value) .. value end
    end
    out[#out + 1] = "\0\0"
    return table.concat(out)
end

-- Sets txn.cors_headers, the headers of the response, where the request's origin is allowed, and txn.preflight where
-- the gateway answers. With credentials a browser takes '*' for a name, so then what was asked for is repeated; the
-- names of the headers that may be seen are known when the response is (txn.expose).
core.register_action("gwctl_cors", { "http-req" }, function(txn)
    local cors = parse_cors(txn:get_var("txn.cors"))
    local headers = txn.http:req_get_headers()
    local origin = join_header(headers["origin"])
    local method = preflight_method(txn, headers)
    if method ~= nil then txn:set_var("txn.preflight", "1") end
    if not is_allowed(cors, origin) then return end
    local answer = {
        { "access-control-allow-origin", cors.for_anyone and "*" or origin },
        { "access-control-allow-credentials", cors.credentials and "true" },
    }
    if method ~= nil then
        local asked = join_header(headers["access-control-request-headers"]) or ""
        local function allowed(list, wanted) return list == "*" and cors.credentials and wanted or list end
        answer[#answer + 1] = { "access-control-allow-methods", allowed(cors.methods, method) }
        if asked ~= "" or cors.headers ~= "*" then
            answer[#answer + 1] = { "access-control-allow-headers", allowed(cors.headers, asked) }
        end
        answer[#answer + 1] = { "access-control-max-age", cors.max_age }
    end
    if cors.exposed == "*" and cors.credentials then
        txn:set_var("txn.expose", "1")
    else
        answer[#answer + 1] = { "access-control-expose-headers", cors.exposed }
    end
    txn:set_var("txn.cors_headers", header_list(answer))
end)

local HIDDEN = { ["set-cookie"] = true }
for name in ("cache-control content-language content-length content-type expires last-modified pragma"):gmatch("%S+") do
    HIDDEN[name] = true
end

-- Sets txn.exposed to the names of all headers of a response that a browser does not show anyway.
core.register_action("gwctl_expose", { "http-res" }, function(txn)
    local names = {}
    for name in pairs(txn.http:res_get_headers()) do
        if not HIDDEN[name] and name:sub(1, 15) ~= "access-control-" then names[#names + 1] = name end
    end
    table.sort(names)
    txn:set_var("txn.exposed", table.concat(names, ", "))
end)

-- Copies of requests, for mirrors. No client waits for one. Workers send them, so many on each thread, each over a
-- connection of its own that lives on for a second or two: an old process ends only when they are closed. What finds no
-- worker is not mirrored, and neither is a request whose body does not fit into a buffer or takes its time
-- (txn.copy_lost).
local WORKERS = 100
local copies = core.queue()
local workers, idle = {}, 0

local function connect()
    local socket = core.tcp()
    socket:settimeout(@COPY_SECONDS@)
    if socket:connect((os.getenv("@SOCKETS_VARIABLE@") or "@SOCKETS@") .. "@LOOP@") then return socket end
    socket:close()
    return nil
end

-- Gives whether the copy has arrived, and whether the connection lives on. The loop answers without a body, whatever
-- the mirror has answered; one that had been idle may be closed without an answer.
local function exchange(socket, text)
    if not socket:send(text) then return false, false end
    local line, why = socket:receive("*l")
    if line == nil then return why == "timeout", false end
    if line:sub(1, 12) ~= "HTTP/1.1 204" then return true, false end
    repeat line = socket:receive("*l") until line == nil or #line < 2
    return true, line ~= nil
end

-- Gives the connection where it lives on, and whether to try again over a new one.
local function deliver(socket, text)
    local was_idle = socket ~= nil
    socket = socket or connect()
    if socket == nil then return nil, false end
    local arrived, lives = exchange(socket, text)
    if lives then return socket, false end
    socket:close()
    return nil, was_idle and not arrived
end

local function work(worker)
    while true do
        idle = idle + 1
        worker.idle_since = core.now().sec
        local text = copies:pop_wait()
        worker.idle_since = nil
        local ok, living, again = pcall(deliver, worker.socket, text)
        if ok and again then ok, living = pcall(deliver, nil, text) end
        worker.socket = ok and living or nil
    end
end

local function close_idle()
    while true do
        core.sleep(1)
        for _, worker in ipairs(workers) do
            if worker.socket ~= nil and worker.idle_since ~= nil and core.now().sec > worker.idle_since + 1 then
                pcall(worker.socket.close, worker.socket)
                worker.socket = nil
            end
        end
    end
end

local function copy(text)
    if idle < 1 then
        if #workers >= WORKERS then return false end
        if #workers == 0 then core.register_task(close_idle) end
        local worker = {}
        workers[#workers + 1] = worker
        core.register_task(work, worker)
    end
    idle = idle - 1
    copies:push(text)
    return true
end

local parse_mirrors = cache(function(text)
    local mirrors = {}
    for _, part in ipairs(split(text, "+")) do
        local numerator, denominator, share = part:match("^(%d+)/(%d+):(.*)$")
        local service, filters = share:match("^([^@]*)@?(.*)$")
        mirrors[#mirrors + 1] = {
            numerator = tonumber(numerator),
            denominator = tonumber(denominator),
            purpose = "copy|" .. service .. "|" .. (filters ~= "" and filters or "-"),
        }
    end
    return mirrors
end)

local OF_CONNECTION = {}
for name in ("connection content-length expect http2-settings keep-alive proxy-connection te transfer-encoding upgrade " ..
             "@LOOP_HEADER@"):gmatch("%S+") do
    OF_CONNECTION[name] = true
end

-- A body whose length is not said may be a stream that ends in an hour. It is mirrored where all of it comes at once.
local STREAM_MILLISECONDS = 20

local function is_complete(txn)
    return txn.f:internal_htx_has_eom()
end

-- Gives the body, nil where not all of it is there.
local function whole_body(txn, length)
    for _ = 1, length == nil and STREAM_MILLISECONDS or 0 do
        if is_complete(txn) then break end
        core.msleep(1)
    end
    local body = txn.sf:req_body()
    if length == nil then return is_complete(txn) and body or nil end
    return tonumber(length) == #body and body or nil
end

-- All of a request but its start and its body.
local function head_of_copy(txn, headers, body)
    local lines = {}
    for name, values in pairs(headers) do
        if not OF_CONNECTION[name] then
            for index = 0, #values do lines[#lines + 1] = name .. ": " .. values[index] end
        end
    end
    lines[#lines + 1] = "x-forwarded-for: " .. txn.sf:src()
    if body ~= "" or headers["content-length"] ~= nil then lines[#lines + 1] = "content-length: " .. #body end
    -- Servers of gRPC refuse calls without it.
    if txn:get_var("txn.grpc") ~= nil then lines[#lines + 1] = "te: trailers" end
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

core.register_action("gwctl_mirror", { "http-req" }, function(txn)
    local chosen = {}
    for _, mirror in ipairs(parse_mirrors(txn:get_var("txn.mirrors"))) do
        if math.random(mirror.denominator) <= mirror.numerator then chosen[#chosen + 1] = mirror end
    end
    if #chosen == 0 then return end
    local headers = txn.http:req_get_headers()
    local body = whole_body(txn, join_header(headers["content-length"]))
    local rest = body and "\r\n" .. head_of_copy(txn, headers, body) .. body
    local start = txn.sf:method() .. " " .. txn.sf:pathq() .. " HTTP/1.1\r\n@LOOP_HEADER@: "
    for _, mirror in ipairs(chosen) do
        if body == nil or not copy(start .. mirror.purpose .. rest) then txn:set_var("txn.copy_lost", "1") end
    end
end)

-- Questions: whether a request may pass. Any answer but 200 is given to the client. One goes out on a connection of its
-- own; what cannot be asked is denied. A client may have hundreds of requests in flight and each question takes three
-- descriptors, without which HAProxy ends: so each thread has few at once, and one Service half of them.
local LONGEST_ANSWER = 8000
local QUESTIONS = 100
-- Of HAProxy's maxconn the questions of all threads take this part at most.
local PART_OF_CONNECTIONS = 8
local limit
local asking, asking_of = 0, {}

-- Also HAProxy's garbage collector gives a place back: of a client that goes away nothing but the token is left.
local function release(place)
    local service = place.service
    if service == nil then return end
    place.service = nil
    asking = asking - 1
    asking_of[service] = asking_of[service] > 1 and asking_of[service] - 1 or nil
end

local PLACE = { __gc = release }

-- Gives a place for a question, nil where there is none.
local function take_place(service)
    if limit == nil then
        local info = core.get_info()
        local share = tonumber(info.Maxconn) // (PART_OF_CONNECTIONS * tonumber(info.Nbthread))
        limit = math.max(2, math.min(QUESTIONS, share))
    end
    local of_service = asking_of[service] or 0
    if asking >= limit or of_service >= limit // 2 then return nil end
    asking, asking_of[service] = asking + 1, of_service + 1
    return setmetatable({ service = service }, PLACE)
end

local parse_auths = cache(function(text)
    local auths = {}
    for _, part in ipairs(split(text, "+")) do
        local fields = split(part, ":")
        local function names(field)
            local list, set = {}, {}
            for _, name in ipairs(field == "" and {} or split(field, "&")) do
                list[#list + 1] = decode(name)
                set[decode(name)] = true
            end
            return list, set
        end
        local auth = { service = fields[1], path = decode(fields[2]) }
        auth.headers = names(fields[3])
        auth.answer_list, auth.answer_headers = names(fields[4])
        auths[#auths + 1] = auth
    end
    return auths
end)

-- What describes an answer itself, or its connection, and so says nothing of the request or of another answer.
local OF_ANSWER = {}
for name in ("connection content-length date keep-alive proxy-connection server te trailer transfer-encoding upgrade " ..
             "@STATUS_HEADER@ @LOOP_HEADER@"):gmatch("%S+") do
    OF_ANSWER[name] = true
end
local OF_BODY = { host = true, ["content-type"] = true, ["content-encoding"] = true, ["content-language"] = true }

local function question(txn, auth)
    local lines = { txn.sf:method() .. " " .. auth.path .. txn.sf:pathq() .. " HTTP/1.1", "@LOOP_HEADER@: ask|" .. auth.service .. "|-" }
    local headers = txn.http:req_get_headers()
    local function send(name)
        local values = headers[name]
        if values ~= nil and not OF_CONNECTION[name] then
            for index = 0, #values do lines[#lines + 1] = name .. ": " .. values[index] end
        end
    end
    send("host")
    send("authorization")
    for _, name in ipairs(auth.headers) do
        if name ~= "host" and name ~= "authorization" then send(name) end
    end
    return table.concat(lines, "\r\n") .. "\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
end

local function read_head(socket)
    while true do
        local first = socket:receive("*l")
        local status = first and tonumber(first:match("^HTTP/1%.%d (%d%d%d)"))
        if status == nil then return nil end
        local headers = {}
        while true do
            local line = socket:receive("*l")
            if line == nil then return nil end
            line = line:gsub("\r$", "")
            if line == "" then break end
            local name, value = line:match("^([^:]+):%s*(.-)%s*$")
            if name ~= nil then headers[#headers + 1] = { name:lower(), value } end
        end
        if status >= 200 then return status, headers end
    end
end

-- Gives a body that is not too long, else none at all.
local function read_body(socket, headers)
    local length, chunked
    for _, header in ipairs(headers) do
        if header[1] == "content-length" then length = tonumber(header[2]) end
        if header[1] == "transfer-encoding" then chunked = true end
    end
    if not chunked then return length and length > 0 and length <= LONGEST_ANSWER and socket:receive(length) or "" end
    local parts, total = {}, 0
    while true do
        local size = tonumber(((socket:receive("*l") or ""):match("^%x+")), 16)
        if size == nil or total + size > LONGEST_ANSWER then return "" end
        if size == 0 then return table.concat(parts) end
        parts[#parts + 1], total = socket:receive(size) or "", total + size
        socket:receive("*l")
    end
end

local function ask(txn, auth)
    local socket = connect()
    if socket == nil then return nil end
    local status, headers, body
    if socket:send(question(txn, auth)) then status, headers = read_head(socket) end
    if status ~= nil and status ~= 200 and txn.sf:method() ~= "HEAD" then body = read_body(socket, headers) end
    socket:close()
    return status, headers, body
end

local function deny(txn, status, headers, body)
    local answer = {}
    for _, header in ipairs(headers) do
        local name, value = header[1], header[2]
        if not OF_ANSWER[name] then
            answer[name] = answer[name] or {}
            table.insert(answer[name], value)
        end
    end
    txn:done(txn:reply({ status = status, headers = answer, body = body }))
end

-- The statuses of gRPC by those of HTTP; 2, UNKNOWN, is of all others.
local GRPC_STATUS = { [400] = 13, [401] = 16, [403] = 7, [404] = 12, [429] = 14, [502] = 14, [503] = 14, [504] = 14 }

-- Gives the client of a refused request what the Service has answered. A call of gRPC has its status in headers and
-- no body (the rules of its response write them).
local function refuse(txn, status, headers, body)
    if txn:get_var("txn.grpc") ~= nil then
        txn:set_var("txn.grpc_status", GRPC_STATUS[status] or 2)
        body = ""
    end
    return deny(txn, status, headers, body)
end

-- The answer's headers go on to the backend. One that is named in the filter never comes from the client.
local function take_over(txn, auth, headers)
    for _, name in ipairs(auth.answer_list) do
        if not OF_ANSWER[name] and name ~= "host" then txn.http:req_del_header(name) end
    end
    local seen = {}
    for _, header in ipairs(headers) do
        local name, value = header[1], header[2]
        local is_wanted = auth.answer_headers[name] or (#auth.answer_list == 0 and not OF_BODY[name])
        if is_wanted and not OF_ANSWER[name] and name ~= "host" then
            if not seen[name] then txn.http:req_del_header(name) end
            seen[name] = true
            txn.http:req_add_header(name, value)
        end
    end
end

core.register_action("gwctl_ask", { "http-req" }, function(txn)
    for _, auth in ipairs(parse_auths(txn:get_var("txn.auths"))) do
        if auth.service == "!" then return deny(txn, 500, {}, "") end
        local place = take_place(auth.service)
        if place == nil then return deny(txn, 503, {}, "") end
        local ok, status, headers, body = pcall(ask, txn, auth)
        release(place)
        if not ok or status == nil then return deny(txn, 503, {}, "") end
        if status ~= 200 then return refuse(txn, status, headers, body or "") end
        take_over(txn, auth, headers)
    end
    txn:set_var("txn.allowed", "1")
end)

-- Retries. An answer on the loop whose status a rule retries says "again", and what it is in truth in a header.
local parse_codes = cache(function(text)
    local codes = {}
    for code in text:match("[^:]*$"):gmatch("%d+") do codes[tonumber(code)] = true end
    return codes
end)

core.register_action("gwctl_judge", { "http-res" }, function(txn)
    local status, rest = tonumber(txn.f:status()), tonumber(txn:get_var("txn.rest") or 1)
    if parse_codes(txn:get_var("txn.retry"))[status] and rest > 0 then
        txn.http:res_set_status(@AGAIN@)
    elseif status == @AGAIN@ then
        txn.http:res_set_status(599)
    else
        return
    end
    txn.http:res_set_header("@STATUS_HEADER@", tostring(status))
end)

core.register_action("gwctl_status", { "http-res" }, function(txn)
    local status = join_header(txn.http:res_get_headers()["@STATUS_HEADER@"])
    txn.http:res_set_status(tonumber(status))
    txn.http:res_del_header("@STATUS_HEADER@")
end)
