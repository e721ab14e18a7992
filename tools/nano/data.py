"""Commands and the function calls they mean: a seeded generator (standard library only).

A command is drawn from a frame such as "(set|put) {Z} to {T}": "(a|b)" picks one alternative, "{Z}" is a slot. The
answer is one compact JSON call with a fixed key order. Two kinds of command are kept out of training by hash:
  combo     a frame with a slot value, or a pair of slot values, that training never sees together
  template  a frame with a verb that training never sees together, and whole frames (marked "!") never seen at all
"""
import hashlib, json, random, re

# ---------------------------------------------------------------- the site: zones, doors, machines
ZONES = """cold store|freezer room|lobby|loading dock|packing hall|workshop|office|server room|kitchen|canteen|warehouse|
greenhouse|milking parlour|barn|stable|hen house|dairy|bakery|butchery|shop floor|stock room|showroom|sales floor|
mezzanine|basement|attic|corridor|stairwell|car park|yard|garage|boiler room|pump house|drying room|wash bay|paint shop|
test lab|lab|wine cellar|cellar|fish counter|meat counter|cheese room|seed store|hay loft|pig shed|tack room|egg room|
grain store|nursery|checkout area|fitting rooms|break room|meeting room|reception|pharmacy|returns desk|mail room|
staff room|tool store|dispatch area|receiving area|ripening room|blast chiller|walk-in fridge|produce aisle|calf pen|
chilled aisle|battery room|compressor room|clean room|control room|training room|archive|print room|flower room|
feed store|potato store|apple store|quarantine pen|goat shed|chicken shed|machine hall|assembly hall|back office""".replace("\n", "").split("|")
ZONE_MODS = "north|south|east|west|upper|lower|old|new|main|back|front|left|right|small|big|inner|outer|first|second".split("|")
ZONE_NUMBERED = [("bay", 12), ("aisle", 30), ("row", 20), ("dock", 9), ("room", 24), ("zone", 16), ("hall", 6), ("greenhouse", 8), ("shed", 6), ("silo", 6), ("barn", 5), ("pen", 12)]
DOORS = """front door|back door|side door|main gate|north gate|south gate|roller door|fire exit|loading door|office door|
garage door|cellar hatch|staff entrance|delivery entrance|barn door|stable door|customer entrance|rear entrance|yard gate|
cold store door|workshop door|emergency exit|main entrance|parking barrier|cage door|tool cupboard|key cabinet|sliding door""".replace("\n", "").split("|")
DOOR_NUMBERED = [("door", 24), ("gate", 12), ("dock door", 9), ("locker", 20), ("hatch", 6)]
LINES = """sorting line|packing line|bottling line|infeed belt|outfeed belt|main conveyor|return belt|filling line|labelling line|
grading line|egg belt|feed belt|assembly line|pick line|parcel sorter line|washing line|wrapping line|manure belt|checkout belt|bag line""".split("|")
LINES = [x.strip() for x in LINES]
LINE_NUMBERED = [("line", 12), ("belt", 16), ("conveyor", 14), ("lane", 8)]
MOTORS = """exhaust fan|mixer|water pump|auger|blower|agitator|spindle|drum|hoist|shredder|ventilation fan|extractor fan|
circulation pump|ceiling fan|irrigation pump|feed mixer|dough mixer|air curtain|vacuum pump|cooling fan|milk pump|roof fan|slurry pump|tumbler""".replace("\n", "").split("|")
MOTOR_NUMBERED = [("fan", 12), ("pump", 16), ("mixer", 6), ("motor", 20), ("blower", 6)]
DEVICES = """forklift|compressor|generator|boiler|oven|fryer|packer|labeller|wrapper|baler|label printer|receipt printer|scale|
barcode scanner|router|chiller|dishwasher|feeder|milking robot|tractor|harvester|sprayer|crane|palletiser|robot arm|
ice machine|coffee machine|card reader|slicer|grinder|grain dryer|scissor lift|pallet truck|heat pump|sprinkler system|
alarm panel|solar inverter|backup battery|weighbridge|price display|smoke detector|water softener|egg grader|incubator|floor scrubber""".replace("\n", "").split("|")
DEVICE_NUMBERED = [("pump", 16), ("forklift", 12), ("till", 10), ("scanner", 20), ("camera", 24), ("robot", 8), ("lift", 4), ("charger", 12), ("freezer", 9), ("sensor", 30), ("printer", 6), ("chiller", 6), ("gateway", 6)]
SENSORS = ["temperature", "humidity", "co2", "noise", "light", "smoke", "ammonia", "dust", "pressure", "ph", "soil moisture", "water level", "air quality", "vibration", "weight", "oxygen"]
FEEL = {"temperature": ["warm", "hot", "cold", "chilly"], "humidity": ["humid", "damp", "moist"], "noise": ["noisy", "loud"], "light": ["bright", "light"], "dust": ["dusty"]}
AMOUNT = ["co2", "smoke", "ammonia", "dust", "noise", "light", "oxygen", "vibration"]
TASKS = ["cleaning", "defrost", "stock count", "delivery", "inspection", "watering", "feeding", "milking", "restock", "maintenance", "fire drill", "pest control", "floor wash", "egg collection", "filter change", "calibration", "backup", "waste pickup", "meeting", "shift handover"]
A_TASKS = {"stock count", "delivery", "inspection", "fire drill", "floor wash", "filter change", "backup", "meeting", "shift handover", "restock", "defrost", "waste pickup"}
LEVELS = ["low", "medium", "high", "critical"]

# part_code: arbitrary facts that only memory can answer (40 machines x 30 parts); they are what a wider FFN is for
MACHINES = """dough mixer|label printer|forklift|milking robot|pallet wrapper|bread slicer|grain dryer|egg grader|floor scrubber|
conveyor|chiller|fryer|baler|tractor|bottle filler|meat grinder|ice machine|dishwasher|hay rake|seed drill|box sealer|cheese press|stretch oven|apple washer|
rice polisher|cutter bar|dust collector|palletiser|potato peeler|juice press|plate cooler|scissor lift|spray boom|tray loader|
hammer mill|leaf blower|manure spreader|filling line|bag sewer|coffee roaster""".replace("\n", "").split("|")
PARTS = ["belt", "bearing", "filter", "fuse", "motor", "seal", "gasket", "valve", "nozzle", "relay", "fan", "hose", "chain", "blade", "switch", "spring", "roller", "lamp",
         "gear", "pulley", "piston", "clutch", "probe", "cable", "wheel", "bracket", "guard", "handle", "hinge", "pump"]
_r = random.Random(4711)
CODES = {}
for _m in MACHINES:
    for _p in PARTS:
        while True:
            _c = _r.choice("ABCDEFGHJKLMNPRSTUVWXYZ") + "%02d" % _r.randrange(10, 100)
            if _c not in CODES.values(): break
        CODES[_m, _p] = _c

# ---------------------------------------------------------------- frames; ">" may follow "could you", "!" is held out whole
FRAMES = {
"set_temperature": """>(set|put|change|adjust|move|switch|turn|program|get) {Z} to {T}
>(drop|lower|reduce|cool|chill|bring down|cool down|turn down) {Z} to {T}
>(raise|heat|warm|warm up|heat up|bring up|turn up) {Z} to {T}
>(set|change|adjust|put) the (temperature|temp|thermostat|setpoint) (in|of|for) {Z} to {T}
>(make|get|keep|have) it {T} in {Z}
>(keep|hold|maintain|leave|run|store things in) {Z} at {T}
{Z} (should be|needs to be|must be|has to be|ought to be|is supposed to be) at {T}
{Z} (should go|needs to go|must go|has to go|goes) (down |up |)to {T}
{T} (in|for) {Z}
i (want|need|would like|'d like) {Z} at {T}
i (want|need|would like|'d like) {T} in {Z}
>(take|bring|get) {Z} (down|up) to {T}
{z} to {T}
{z} (temperature|temp|thermostat) to {T}
>(let|have) {Z} (go|run|sit) at {T}
(the target|the setpoint|target temperature) for {Z} is {T}
it is too (hot|cold|warm) in {Z}, (set|make|bring|turn) it to {T}
in {Z} (set|make|we need|i want) {T}
(can we have|let us have|give me|we need) {T} in {Z}
!{T} would be right for {Z}
!>(aim|go) for {T} in {Z}
>(cool|heat|warm) {Z} until it is {T}""",
"set_lights": """>(turn|switch|flip|put) {S} the (lights|light|lamps|lighting) in {Z}
>(turn|switch|put|get) the (lights|light|lamps|lighting) {S} in {Z}
>(turn|switch|put) {S} the {z} (lights|light|lamps|lighting)
>(turn|switch|put) the {z} (lights|light|lamps|lighting) {S}
(lights|light|lamps) {S} in {Z}
{z} (lights|light|lamps) {S}
>(kill|cut|shut off|put out|douse|shut) the (lights|lighting|lamps) in {Z} =off
>(kill|cut|shut off|put out) the {z} (lights|lighting|lamps) =off
>(light up|brighten up|illuminate|light) {Z} =on
i need (light|some light|the lights|lights on) in {Z} =on
it is (too dark|dark|pitch black|gloomy) in {Z} =on
i (can't|cannot) see (anything|a thing) in {Z} =on
>make sure the (lights|lamps) in {Z} are {S}
(no lights|no light|darkness) in {Z} =off
>(darken|black out) {Z} =off
nobody is in {Z}, (lights off|turn off the lights|switch the lights off) =off
we are (done|finished) in {Z}, (lights off|turn off the lights|switch the lights off) =off
the (lights|lamps|lighting) in {Z} (should be|must be|need to be|have to be) {S}
i want the (lights|lamps) in {Z} {S}
>(make|get) {Z} dark =off
>(save power|save energy) in {Z}, lights off =off
!>give me some light in {Z} =on
!>(leave|keep) the lights {S} in {Z}
(somebody|someone) left the (lights|lamps) on in {Z} =off""",
"lock_door": """>(lock|bolt|secure|shut and lock|close and lock|latch|seal|lock up|close) {D}
>make sure {D} is (locked|bolted|secured|shut|closed)
{D} (should|must|needs to|has to) be (locked|secured|bolted)
>(get|have) {D} (locked|bolted|secured)
>put the (lock|bolt) on {D}
>(keep|leave) {D} (locked|shut|closed)
(nobody|no one) (may|should|must) (come|go|get) (in|out|through) (at|by|through) {D}
i want {D} (locked|bolted|shut)
>(engage|activate|close) the lock (on|of|at) {D}
>(lock|secure|bolt) {D} (for the night|behind me|behind us|after me)
{d} (locked|lock)
(everyone|everybody) is out, (lock|secure|bolt) {D}
we are closing, (lock|secure|bolt) {D}
>(shut|close|pull|seal off) {D} and (lock|bolt|secure) it
do not let (anyone|anybody|them|him|her|strangers|visitors|the kids) (in|out) (through|at|by) {D}
>(stop|keep) (people|everyone|everybody|visitors) from (coming|going|getting) (in|out|through) (at|by|through) {D}
>make sure (nobody|no one) (gets|comes|goes) (in|out|through) (at|by|through) {D}
no (entry|access|visitors|more people) (at|by|through) {D}
{D} is (open|unlocked), (lock|shut|close|bolt) it
!nobody else (comes|gets) (in|out) by {D}
!>(pull|swing) {D} shut and lock up
i forgot to lock {D}
is {D} locked? if not, lock it""",
"unlock_door": """>(unlock|unbolt|open|release|unlatch|open up|undo) {D}
>let (me|us|him|her|them|the driver|the cleaners|the vet|the courier) (in|out|through) (at|through|by) {D}
>take the (lock|bolt) off {D}
{D} (should|must|needs to|has to) be (unlocked|open|opened)
>(release|disengage|open|undo) the lock (on|of|at) {D}
(i|we|they) (need|want|have) to get (in|out) (through|by|at) {D}
>(get|have) {D} (open|unlocked)
(the driver|someone|a customer|the courier|the vet) is (waiting|standing|stuck) at {D}, (open it|open up|let them in)
>give (the driver|me|the cleaners|the courier|the vet) access (through|to|at) {D}
i want {D} (open|unlocked)
>(keep|leave) {D} (unlocked|open)
>make sure {D} is (unlocked|open)
{d} (unlocked|unlock|open)
{D} is (locked|shut|bolted), (open|unlock|release) it
>let (people|everyone|everybody|visitors|the kids) (in|out|through) (at|by|through) {D}
i am (locked out|stuck) at {D}
!>(buzz|let) (the visitor|the plumber) in at {D}
!>make {D} open
we are opening, (unlock|open) {D}""",
"set_conveyor": """>(start|start up|fire up|kick off|launch|restart|run|get going|activate) {L} =run
>get {L} (moving|running|going|rolling|started) =run
>set {L} (in motion|running|going|moving) =run
>put {L} (back on|in motion|into operation) =run
{L} (can|should|may|must) (run|start|go|move) (again|now|) =run
>let {L} (roll|run|go|move) =run
>(turn|switch) on {L} =run
>(turn|switch) {L} on =run
{l} (on|running|go|start) =run
>(stop|halt|pause|freeze|shut down|hold|kill|shut off) {L} =stop
>bring {L} to a (stop|halt|standstill) =stop
{L} (must|should|needs to|has to) (stop|halt|pause) =stop
>(turn|switch) off {L} =stop
>(turn|switch) {L} off =stop
{l} (off|stop|halt) =stop
>(put|place) {L} on hold =stop
something is (stuck|jammed|caught) on {L}, (stop it|halt|shut it down) =stop
(the jam is cleared|all clear|we are ready), (start|run|restart) {L} =run
!>stop {L} from (moving|running) =stop
!i want {L} (moving|running) =run
!i want {L} (stopped|halted) =stop""",
"set_speed": """>(set|put|run|turn|drive|switch|get) {M} (to|at) {P}
>(slow|throttle|ramp|bring|turn|take) {M} down to {P}
>(slow|throttle|ramp|turn) down {M} to {P}
>(speed|ramp|crank|bring|turn|take) {M} up to {P}
>(speed|ramp|crank|turn) up {M} to {P}
{m} (to|at) {P}
{P} (on|for) {M}
>(change|set|adjust|put|bring) the (speed|power) of {M} to {P}
>(change|set|adjust|put) the {m} speed to {P}
>(let|have|make) {M} (run|go|spin|work) at {P}
i (want|need|would like|'d like) {M} at {P}
{M} (should run|must run|needs to be|should be|has to run|can run) at {P}
>(reduce|increase|drop|raise|lower) {M} to {P}
>(give|allow) {M} {P}
{M} is too (fast|slow), (set|make|bring) it to {P}
!>(keep|hold) {M} at {P}
!>take the speed of {M} to {P}
{P} is enough for {M}""",
"read_sensor": """(what is|what's|tell me|give me|read|show|check|get|report|read out|show me|read me|measure) the {N} (in|of|at|for|from) {Z}
how {F} is it in {Z}
how {F} is {Z} (right now|now|at the moment|)
how {F} is it in {Z} (right now|now|at the moment)
>(tell me|check|find out|see) how {F} it is in {Z}
what does the {N} sensor in {Z} (say|read|show)
what is the {N} (reading|value|level|figure) (in|for|from|at) {Z}
{z} {N}
{N} (in|of|at|for) {Z}
i (need|want|would like) the {N} (reading|value|figure|level|) (in|from|of|for) {Z}
>(take|get|fetch|give me) a {N} reading (in|from|at|for) {Z}
is there (any|much|too much) {A} in {Z}
how much {A} is there in {Z}
how is the {N} in {Z}
what {N} do we have in {Z}
>(check|read|measure) the {z} {N}
(what's|what is) the {z} {N}
{N} reading (for|from|in) {Z}
!what is the current {N} in {Z}
!how high is the {N} in {Z}
is it {F} in {Z}""",
"schedule": """>(schedule|plan|book|set up|arrange|put down|line up|organise) {K} (in|for|at) {Z} (at|for) {H}
{K} (in|for|at) {Z} at {H}
at {H} (do|start|run|begin|schedule|plan) {K} in {Z}
>(start|begin|run|do) {K} in {Z} at {H}
{Z} (needs|gets|is due for|wants) {K} at {H}
>put {K} (for|in) {Z} (on the calendar|in the diary|on the schedule|on the plan) (for|at) {H}
>remind (me|us|the team|everyone) (of|about) {K} in {Z} at {H}
i (want|need|would like) {K} in {Z} at {H}
>(have|get) {K} (done|started|going) in {Z} at {H}
>(add|enter|put) {K} for {Z} at {H}
we (do|start|have|need) {K} in {Z} at {H}
>(set|fix) {K} in {Z} for {H}
>(schedule|plan|book) {K} for {H} in {Z}
{H}, {K} in {Z}
there (is|will be) {K} in {Z} at {H}
>(schedule|plan|book) {Z} for {K} at {H}
!>make sure {K} in {Z} starts at {H}
!>slot in {K} at {H} for {Z}""",
"raise_alarm": """>(raise|sound|trigger|set off|send|give|issue|start|activate) a {V} (alarm|alert|warning) (in|for|at) {Z}
{V} (alarm|alert|warning) (in|for|at) {Z}
>(alert|warn) everyone in {Z}, {V} (level|priority)
>put {Z} on {V} alert
we need a {V} (alarm|alert|warning) (in|for|at) {Z}
(there is|we have|we've got) a {V} (emergency|danger|risk|incident) in {Z}
{Z} (has|needs|gets) a {V} (alarm|alert)
>(declare|call) a {V} (emergency|alert|alarm) in {Z}
alarm (in|for|at) {Z}, level {V}
>(raise|sound|trigger|set off) (the|an) alarm (in|for|at) {Z}, (level|priority|make it) {V}
{V} (priority|level) (alarm|alert) (in|for|at) {Z}
>set the alarm (level |)(in|for|of) {Z} to {V}
>send (out |)a {V} alert (to|for|about) {Z}
something is wrong in {Z}, (raise|sound|trigger) a {V} alarm
!>make it a {V} alarm for {Z}
!a {V} (alarm|alert) please for {Z}""",
"query_status": """(what is|what's|check|show|tell me|give me|get|show me|report) the (status|state|health|condition) of {Y}
how is {Y} (doing|going|running|holding up|getting on|)
is {Y} (ok|okay|alright|fine|running|working|online|up|alive|down|broken|healthy|all right|still running|still on|connected)
>(check|look|check up|report|look in) on {Y}
>check {Y}
(status|state|health) (of|for) {Y}
{y} (status|state|health)
(anything wrong|any problem|any trouble|what is wrong|what is up|what's wrong|something wrong) with {Y}
does {Y} (work|run|still work|still run)
has {Y} (stopped|failed|crashed|finished)
>give me (a report|an update|news|the status) on {Y}
(i want to know|find out|see|tell me|check) (if|whether) {Y} is (running|ok|working|online|fine)
>(run a check|do a check|run diagnostics) on {Y}
what is {Y} doing
is {Y} (ok|working|running) or (not|broken)
is everything (ok|fine|alright) with {Y}
(any|are there any|do you see any) (alarms|issues|warnings|problems) on {Y}
what (state|condition|shape) is {Y} in
(has anything|did anything) (gone|go) wrong (with|on) {Y}
!in what state is {Y}
!are there any (faults|errors) on {Y}""",
"part_code": """(what is|what's|tell me|give me|look up|find|get|show me|check) the (part code|code|part number|order code) (for|of) the {mp}
(which|what) code does the {mp} have
(part code|code|part number) (for|of|) the {mp}
{mp} (code|part code|part number)
i need (a new|another|a|a spare) {pm}, what is the code
(i need|we need|i want) the (code|part code|part number) (for|of) the {mp}
the {pm} (is broken|is worn|broke|has gone|is leaking|is done), what is the code
(what|which) (part code|part number|code) is the {mp}
how do i order (a|the) {mp}
(what|which) code do i (order|need|use) for the {mp}
we are out of (the |){ms}, what is the code
>(look up|find|get|check) the {mp} code
the {mp} needs replacing, (which|what) (part|code|number) is it
(code|number) please, {mp}
!under which code do i find the {mp}
!(replacement|spare) {pm}, code please""",
}

NONE_FRAMES = """what is the weather (like|) (today|tomorrow|outside)
tell me a joke
(play|put on) (some|) (music|radio|jazz)
(call|phone|ring) (john|maria|the office|my wife|the vet|the police|the boss|a taxi|the supplier)
(send|write) (an email|a message|a letter|a text) to (john|maria|the boss|the supplier|the office|the customer)
how much does (a|the) {y0} cost
(order|buy|get|sell) (a|another|a new|two|three|more) {y0}
(order|buy) (more|some) (boxes|tape|pallets|labels|flour|feed|milk|apples|paper|gloves)
who (built|designed|owns|cleaned|painted) {Z}
(paint|rebuild|tidy|sweep|measure|decorate|rename|rent out|sell|demolish) {Z}
(paint|repair|replace|oil|clean|measure|remove|fix) {D}
(repair|move|clean|replace|oil|paint|lift|borrow|unplug|wash|lend me|sell) {Y}
how old is {Y}
how (big|large|far|high|old|wide) is {Z}
where is {Z}
where (is|did i leave|did you put) {Y}
where (is|are) (the|my) (keys|gloves|broom|phone|pallets|boxes|ladder|first aid kit|toilet|coffee)
what (colour|size) is {Y}
what colour is {D}
who (has|took|used|drove) {Y}
(hello|hi|good morning|good evening|hey there|thanks|thank you|bye|goodbye|see you tomorrow|well done|nice work|never mind|forget it|ok then)
how are you (today|doing|)
what is your name
who are you
what can you do
(are you|you are) (a robot|human|clever|stupid|great)
what (time|day|date) is it
(translate|spell|repeat|read out|define) (this|that|the word pallet|the label|the message|the manual)
(what is|how much is) {i} (plus|minus|times|divided by) {i}
how many (people|boxes|pallets|cows|hens|customers|orders|tomatoes|trucks) (are there|do we have|came in|are left) in {Z}
how many (people|boxes|pallets|cows|hens|customers|orders|trucks) (are there|do we have|came in|are left) (today|)
(count|weigh|pack|move|unload|load|stack|label) the (boxes|pallets|eggs|crates|parcels|bags|tomatoes|sheep)
(who|which team) works (tomorrow|today|tonight|on monday|in {Z})
(am i|is maria|is john|who is) (off|working|on holiday|late|sick) (today|tomorrow|)
(when|what time) (does|do) (the shop|lunch|the bus|my shift|the meeting|the break|we) (start|end|open|close|leave|begin)
(what|which) (film|song|book) (should|can) i (watch|play|read)
(book|reserve) (a table|a hotel|a flight|a holiday|a train)
(i am|we are) (tired|hungry|bored|thirsty|lost|late|cold)
(remember|write down|note) that (john|maria|the boss|the vet) (called|was here|is ill|owes me money)
(delete|print|copy|open|save) (the|my|all) (file|files|report|invoice|photos|emails|list)
(what is|tell me) the (capital of france|meaning of life|price of milk|exchange rate|football score|news|wifi password)
(set|start) a (timer|stopwatch)
(increase|raise|lower|drop|cut) (the price|prices|my pay|the rent|the discount) (of apples|of milk|by {i} percent|)
(why|when) (was|is) {Z} (closed|empty|so big|full|being rebuilt)
(make|brew|get|bring) (me |us |)(a coffee|some tea|a sandwich|lunch|a new box|a ladder)
(take|make) a (photo|picture|video) of {Z}
(drive|park|charge|fuel|reverse) {Y}
(feed|milk|count|move|vaccinate) the (cows|hens|pigs|goats|calves|cat)
(cancel|confirm|change|track|ship|pack) (my|the|this|that) order
(can|could) you (sing|dance|swim|cook|dream|drive)
(the|our) {y0} (is nice|looks good|is new|is ugly|is mine)
{Z} (is nice|looks good|is big|smells|is mine|looks tidy)
{D} (is nice|looks good|is squeaky|is heavy|needs paint)
i (like|hate|love|miss|prefer) {Z}
i (like|hate|love|miss) {Y}
who is in {Z}
(is|was) (john|maria|the boss|anyone|the vet) in {Z}
(go|walk|come|drive|run) to {Z}
(bring|take|carry|move) (the boxes|the pallets|this|that crate|the eggs) to {Z}
(turn|switch) on the (radio|tv|music|news)
(turn|switch) off the (radio|tv|music|alarm clock)
(set|change) the (price|date|language|name) (of|to|for) (english|apples|monday|the milk|german)
(do we have|is there|have we got) (any |)(milk|tape|coffee|paint|diesel|flour|hay) (left|)
(lock|open|close) (my account|a ticket|the file|the app|the deal)
(unlock|charge|find) my (phone|car|bike)
what is (a|an|the) {s0} (for|made of|)
(explain|describe) (the|a) {y0}
!(recommend|suggest) a good (restaurant|wine|book)
!how do i get to {Z}
!does anyone (know|remember) (maria|the price|the password)
!(who|when did someone last) (repaired|cleaned) {Y}
!(what|which) brand is {Y}
!(hire|fire|promote) (john|maria|a driver)
!(teach|show) me (to cook|some french|a trick)""".split("\n")

PRE_ANY = "please|hey|ok|um|so|right|hello|hi|listen|sorry|good morning|excuse me|hey there|okay|well|quick one|uh|alright|yo|good evening".split("|")
PRE_DO = "could you|can you|would you|i need you to|go ahead and|let's|we need to|i want you to|could you please|can you please|can you just|please|would you mind and|i'd like you to|will you|you should|you can|be so kind and|time to|just|now|don't forget to|somebody".split("|")
POST = "please|thanks|thank you|for me|as soon as possible|asap|ok|will you|if you can|quickly|cheers|mate|when you can|would you|thank you very much|if possible|right".split("|")
POST_NOW = ["now", "right now", "right away", "at once", "immediately", "straight away", "today"]


def h(*key):
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=6).digest(), "big")


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def words(n):
    if n < 20: return ONES[n]
    if n == 100: return "a hundred"
    return TENS[n // 10] + (" " + ONES[n % 10] if n % 10 else "")


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)

    # -------- slot renderers: return (spoken text, JSON value)
    def number(self, kind):
        n, top = kind
        i = self.r.randint(1, top)
        spoken = words(i) if self.r.random() < 0.2 else str(i)
        return (n + (" number " if self.r.random() < 0.06 else " ") + spoken, f"{n} {i}")

    def named(self, names, numbered, share, mods=None):
        """-> (bare text, value, takes an article)"""
        if self.r.random() < share:
            s, v = self.number(self.r.choice(numbered))
            return s, v, False
        n = self.r.choice(names).strip()
        if mods and self.r.random() < 0.3: n = self.r.choice(mods) + " " + n
        return n, n, True

    def art(self, t, article):
        if not article: return t
        x = self.r.random()
        return ("the " if x < 0.86 else "our " if x < 0.89 else "") + t

    def door(self):
        if self.r.random() < 0.25:                                  # a zone's own door
            z = self.r.choice(ZONES); n = z + " " + self.r.choice(["door", "gate", "door"])
            return n, n, True
        return self.named(DOORS, DOOR_NUMBERED, 0.35)

    def temp(self):
        r = self.r
        n = r.randint(-30, 45) if r.random() < 0.6 else r.choice([-25, -22, -20, -18, -15, -5, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 37, 60])
        half = r.random() < 0.12
        a = abs(n)
        if r.random() < 0.5:
            s = f"{a}.5" if half else str(a)
            if n < 0: s = r.choice(["-", "minus ", "minus "]) + s
        else:
            s = words(a) + (r.choice([" and a half", " point five"]) if half else "")
            if n < 0: s = r.choice(["minus ", "minus ", "negative "]) + s
        if n < 0 and r.random() < 0.08: s = s.replace("minus ", "").replace("-", "").replace("negative ", "") + " below zero"
        elif n < 0 and r.random() < 0.05: s = s.replace("minus ", "").replace("-", "").replace("negative ", "") + " degrees below zero"
        else: s += r.choice(["", "", " degrees", " degrees", " celsius", " degrees celsius", " c"])
        if a == 0 and n == 0 and half: n = 0
        v = (n - 0.5 if n < 0 else n + 0.5) if half else n
        return s, v

    def percent(self):
        r = self.r
        x = r.random()
        if x < 0.06: return "full speed", 100
        if x < 0.12: return "half speed", 50
        if x < 0.14: return "full power", 100
        if x < 0.16: return "half power", 50
        p = r.randint(1, 20) * 5 if r.random() < 0.6 else r.randint(5, 99)
        s = words(p) if r.random() < 0.45 else str(p)
        return s + (r.choice([" percent", " percent", " per cent", "%"]) if s.isdigit() else r.choice([" percent", " percent", " per cent"])), p

    def clock(self):
        r = self.r
        hh = r.randint(0, 23) if r.random() < 0.3 else r.randint(5, 22)
        mm = r.choice([0, 0, 0, 15, 30, 30, 45, 10, 20, 40, 50, 5, 25, 35, 55]) if r.random() < 0.8 else r.randint(0, 59)
        kind = r.random()
        if kind < 0.04: return r.choice(["noon", "midday"]), "12:00"
        if kind < 0.06: return "midnight", "00:00"
        if kind < 0.30:                                              # 24 hour digits
            return (f"{hh:02d}:{mm:02d}" if r.random() < 0.5 else f"{hh}:{mm:02d}"), f"{hh:02d}:{mm:02d}"
        if hh == 0: hh = 7
        h12 = hh if hh <= 12 else hh - 12
        if r.random() < 0.5: part = " am" if hh < 12 else " pm"
        else:
            part = " in the morning" if hh < 12 else " in the afternoon" if hh < 18 else " in the evening"
            if hh >= 21 and r.random() < 0.5: part = " at night"
        v = lambda m: f"{hh:02d}:{m:02d}"
        w = words(h12) if r.random() < 0.6 else str(h12)
        if kind < 0.55:                                              # whole hour
            if r.random() < 0.25: w += " o'clock"
            return w + part, v(0)
        if kind < 0.70:                                              # digits with am / pm
            return f"{h12}:{mm:02d}{part}", v(mm)
        if kind < 0.80:                                              # "seven thirty"
            m = r.choice([15, 30, 45, 10, 20, 40, 50])
            return words(h12) + " " + words(m) + part, v(m)
        if kind < 0.88: return f"half past {w}{part}", v(30)
        if kind < 0.94: return f"quarter past {w}{part}", v(15)
        nxt = h12 % 12 + 1                                            # "quarter to eight" belongs to the hour before
        if hh == 23 or hh == 11 or hh == 12: hh -= 2; h12 = hh if hh <= 12 else hh - 12; nxt = h12 % 12 + 1
        part = part if (hh + 1 < 12) == ("am" in part or "morning" in part) else ""
        if not part: part = " am" if hh + 1 < 12 else " pm"
        if "afternoon" in part or "evening" in part: part = " in the afternoon" if hh + 1 < 18 else " in the evening"
        return f"quarter to {words(nxt) if r.random() < 0.6 else nxt}{part}", f"{hh:02d}:45"

    # -------- one frame -> segments
    def slot(self, fn, s, val):
        """Text of slot `s`; its JSON value goes to val."""
        r = self.r
        if s in ("Z", "z"):
            b, v, a = self.named(ZONES, ZONE_NUMBERED, 0.22, ZONE_MODS); val.setdefault("zone", v)
            return self.art(b, a) if s == "Z" else b
        if s in ("D", "d"):
            b, v, a = self.door(); val["door"] = v
            return self.art(b, a) if s == "D" else b
        if s in ("L", "l"):
            b, v, a = self.named(LINES, LINE_NUMBERED, 0.5); val["line"] = v
            return self.art(b, a) if s == "L" else b
        if s in ("M", "m"):
            b, v, a = self.named(MOTORS, MOTOR_NUMBERED, 0.4); val["device"] = v
            return self.art(b, a) if s == "M" else b
        if s in ("Y", "y", "y0"):
            b, v, a = self.named(DEVICES + (MOTORS if fn == "query_status" else MOTORS + MACHINES), DEVICE_NUMBERED, 0.45 if s != "y0" else 0); val["device"] = v
            return self.art(b, a) if s == "Y" else b
        if s == "s0": return r.choice(SENSORS[:4] + ["forklift", "baler", "silo", "pallet", "barcode", "gateway"])
        if s == "i": return str(r.randint(2, 99)) if r.random() < 0.7 else words(r.randint(2, 99))
        if s == "T": t, v = self.temp(); val["celsius"] = v; return t
        if s == "P": t, v = self.percent(); val["percent"] = v; return t
        if s == "H": t, v = self.clock(); val["time"] = v; return t
        if s == "S": val["state"] = r.choice(["on", "off"]); return val["state"]
        if s == "V": val["level"] = r.choice(LEVELS); return val["level"]
        if s == "N": val["sensor"] = r.choice(SENSORS); return val["sensor"]
        if s == "A": val["sensor"] = r.choice(AMOUNT); return val["sensor"]
        if s == "F": k = r.choice(list(FEEL)); val["sensor"] = k; return r.choice(FEEL[k])
        if s == "K":
            k = r.choice(TASKS); val["task"] = k
            x = r.random()
            return ("a " if k in A_TASKS and k[0] not in "aeiou" else "an " if k in A_TASKS else "") + k if x < 0.6 else ("the " if x < 0.8 else "") + k
        if s in ("mp", "pm", "ms"):
            m, p = r.choice(MACHINES), r.choice(PARTS); val["machine"], val["part"] = m, p
            x = r.random()
            if s == "ms":
                pl = p + ("es" if p[-1] in "sh" and p != "hose" else "s")
                return f"{pl} for the {m}" if x < 0.5 else f"{m} {pl}"
            if s == "pm" or x < 0.45: return f"{p} {r.choice(['of', 'for', 'on', 'in'])} the {m}"
            return f"{m} {p}"
        raise KeyError(s)

    ORDER = {"set_temperature": ["zone", "celsius"], "set_lights": ["zone", "state"], "lock_door": ["door"], "unlock_door": ["door"],
             "set_conveyor": ["line", "state"], "set_speed": ["device", "percent"], "read_sensor": ["sensor", "zone"],
             "schedule": ["task", "zone", "time"], "raise_alarm": ["zone", "level"], "query_status": ["device"], "part_code": ["code"], "none": []}

    def draw(self, fn):
        """-> text, answer, split ("train" | "combo" | "template")"""
        r = self.r
        frames = NONE_FRAMES if fn == "none" else FRAME_LIST[fn]
        i = r.randrange(len(frames)); f = frames[i]
        held = f.startswith("!"); f = f.lstrip("!")
        can_do = f.startswith(">"); f = f.lstrip(">")
        val, segs, first = {}, [], -1
        m = re.search(r" =(\w+)$", f)
        if m: val["state"] = m[1]; f = f[: m.start()]
        for lit, alt, slot in re.findall(r"([^({]+)|\(([^)]*)\)|\{(\w+)\}", f):
            if lit: segs.append([lit, False])
            elif slot: segs.append([self.slot(fn, slot, val), True])
            else:
                opts = alt.split("|"); k = r.randrange(len(opts)); pick = opts[k]
                if first < 0: first = k
                for l2, s2 in re.findall(r"([^{]+)|\{(\w+)\}", pick):
                    segs.append([l2, False] if l2 else [self.slot(fn, s2, val), True])
        # split
        if fn == "part_code":
            combo = h("pc", i, val["machine"], val["part"]) % 6 == 0
            params = {"code": CODES[val["machine"], val["part"]]}
        else:
            params = {} if fn == "none" else {k: val[k] for k in self.ORDER[fn]}
            keys = list(val.values()) if fn == "none" else list(params.values())
            combo = bool(keys) and (h(fn, i, keys[0]) % 10 == 0 or (len(keys) > 1 and h(fn, keys[0], keys[1]) % 12 == 0))
        split = "template" if held or h("tpl", fn, i, first) % 14 == 0 else "combo" if combo else "train"
        answer = json.dumps({"name": fn, "parameters": params}, separators=(",", ":"))
        return self.dress(fn, segs, can_do, val), answer, split

    def dress(self, fn, segs, can_do, val):
        """Politeness, corrections, typos, case and punctuation around the bare command."""
        r = self.r
        if r.random() < 0.10:                                        # a typo, never inside a slot
            lits = [s for s in segs if not s[1] and re.search(r"[a-z]{4,}", s[0])]
            if lits:
                s = r.choice(lits); ws = [m for m in re.finditer(r"[a-z]{4,}", s[0])]; w = r.choice(ws)
                t = list(w[0]); k = r.randrange(1, len(t) - 1)
                z = r.random()
                if z < 0.4: t[k], t[k - 1 if k > 1 else k + 1] = t[k - 1 if k > 1 else k + 1], t[k]
                elif z < 0.75: del t[k]
                else: t.insert(k, t[k])
                s[0] = s[0][: w.start()] + "".join(t) + s[0][w.end():]
        text = re.sub(r" +", " ", "".join(s[0] for s in segs)).strip()
        if "celsius" in val and r.random() < 0.04:
            old = self.temp()[0]; text = text.replace(segs[-1][0], f"{old}, {r.choice(['no wait,', 'sorry,', 'no,', 'i mean'])} {segs[-1][0]}") if segs[-1][1] else text
        elif "percent" in val and r.random() < 0.03 and segs[-1][1]:
            text = text.replace(segs[-1][0], f"{self.percent()[0]}, {r.choice(['no wait,', 'sorry,', 'i mean'])} {segs[-1][0]}")
        x = r.random()
        if can_do and x < 0.24: text = r.choice(PRE_DO) + " " + text
        if r.random() < 0.16: text = r.choice(PRE_ANY) + r.choice([" ", ", ", ", "]) + text
        if r.random() < 0.22:
            text += r.choice([" ", " ", ", "]) + r.choice(POST if fn == "schedule" or r.random() < 0.7 else POST_NOW)
        question = bool(re.match(r"(what|how|is|does|has|who|where|when|which|are|can|could|would|why|do|any)\b", text))
        if r.random() < 0.35: text += "?" if question else r.choice([".", ".", "!"])
        if r.random() < 0.35: text = text[0].upper() + text[1:]
        text = re.sub(r"\bi\b(?!\.)", "I", text) if r.random() < 0.6 else text
        if r.random() < 0.15: text = text.replace("it is", "it's").replace("what is", "what's").replace("I would", "I'd")
        return text


FRAME_LIST = {k: v.split("\n") for k, v in FRAMES.items()}
FUNCTIONS = list(FRAME_LIST) + ["none"]
# how often each function is drawn for training: clock phrases need the most examples, facts the most repetitions
MIX = {"set_temperature": 9, "set_lights": 5, "lock_door": 4.5, "unlock_door": 4.5, "set_conveyor": 5, "set_speed": 6,
       "read_sensor": 7, "schedule": 14, "raise_alarm": 5, "query_status": 6.5, "part_code": 48, "none": 11}
HELDOUT = {"part_code": 500, "none": 120, "schedule": 110, "set_temperature": 110, "read_sensor": 90}     # others 80


def prompt(text):
    return f"<bos><start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n"


def heldout(seed=99):
    """The held-out commands: half unseen combinations, half unseen templates."""
    mk, out, seen = Maker(seed), [], set()
    for fn in FUNCTIONS:
        n = HELDOUT.get(fn, 80)
        want = {"combo": n - n // 2, "template": n // 2}
        tries = 0
        while sum(want.values()):
            tries += 1
            t, a, s = mk.draw(fn)
            if s not in want or not want[s] or t.lower() in seen: continue
            seen.add(t.lower()); want[s] -= 1
            out.append({"text": t, "expected": a, "function": fn, "split": s})
            assert tries < 200000, (fn, want)
    return out


def training(n, seed, banned, mix=MIX):
    """n commands that are neither held out nor equal to a banned text (compared in lower case)."""
    mk, out = Maker(seed), []
    fns, ws = list(mix), list(mix.values())
    while len(out) < n:
        fn = mk.r.choices(fns, ws)[0]
        t, a, s = mk.draw(fn)
        if s == "train" and t.lower() not in banned: out.append((t, a, fn))
    return out


if __name__ == "__main__":
    for e in heldout()[:: 11]: print(e["function"], e["split"], "|", e["text"], "|", e["expected"])
