-- What wrk sends and counts; run by load.py with: result file, requests file, first serial number.
-- The response callback makes wrk keep each answer's headers and body: without it wrk takes every status below 400
-- for a success, and a redirect would be the fastest answer of all.

local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    result, templates, serial = args[1], dofile(args[2]), tonumber(args[3])
    calls, unexpected = 0, 0
end

function request()
    calls = calls + 1
    local template = templates[calls % #templates + 1]
    return (string.gsub(template, "SERIALNUMBER", string.format("%.0f", serial + calls)))
end

function response(status)
    if status ~= 200 then
        unexpected = unexpected + 1
    end
end

function done(summary, latency)
    local thread = threads[1] -- whose request() was called once before the first one was sent
    local errors = summary.errors
    local out = assert(io.open(thread:get("result"), "w"))
    out:write(string.format(
        '{"microseconds": %.0f, "answers": %.0f, "sent": %.0f, "unexpected": %.0f, ',
        summary.duration, summary.requests, thread:get("calls") - 1, thread:get("unexpected")))
    out:write(string.format(
        '"connect": %.0f, "read": %.0f, "write": %.0f, "timeout": %.0f, "latencies": [',
        errors.connect, errors.read, errors.write, errors.timeout))
    for i = 1, #latency do
        local value, count = latency(i)
        out:write(string.format("%s[%.0f, %.0f]", i > 1 and ", " or "", value, count))
    end
    out:write("]}\n")
    out:close()
end
