"""More English rules: shapes, groups of things, two conditions, counts, small talk.

{best} biggest or leftmost; {n} three; {hue} red; {word} a word that the world does not have.
"""

from __future__ import annotations

RULES: dict[str, str] = {
    "shape": """
        +++ what shape (is|'s) (it|this|that|<inpic>|<inpic>|the <thing>|shown|here|present|there)
        + (what|which) shape (does <pic> <has>|do you <see>|can you <see>|is in <pic>)
        + (what|which) (geometric |)(shape|form|figure) is (this|it|shown|<inpic>|that|present|visible)
        what( is|'s) the shape[ of (it|this|the <thing>)| <inpic>| shown]
        what (form|shape|figure) has (it|this|the <thing>)
        <tell> (what shape it is|the shape|which shape this is|what shape is <inpic>)
        name the (shape|figure|form)[ <inpic>].
        (it|this|the <thing>) (is|has) (what|which) shape
        (its|the) shape
        [which |what ]shape
        shape of (it|this|the <thing>)
        what kind of shape is (it|this|<inpic>|the <thing>)
        what (shape|figure) is (drawn|depicted|displayed)[ <inpic>]
        ! (which|what) shape (would you call this|would you say it is|has been drawn)
        ! <can> identify the (shape|figure|form)[ <inpic>| for me]
        ! of what shape is (it|this|the <thing>)
        ! how is (it|the <thing>) shaped
        ! <pic> <has>s (what|which) shape
    """,
    "shape_of": """
        +++ what shape (is|'s) the {x}[ <inpic>]
        + what( is|'s) the shape of the {x}[ <inpic>]
        (which|what) shape does the {x} have
        (which|what) (shape|form|figure) is the {x}
        the {x} (is|has) (what|which) shape
        <tell> (what shape the {x} is|the shape of the {x})
        [the ]shape of [the ]{x}
        {x} shape
        what (form|shape) has the {x}
        what kind of shape is the {x}
        ! of what shape is the {x}
        ! how is the {x} shaped
        ! (which|what) shape would you say the {x} (is|has)
        ! <can> identify the shape of the {x}
    """,
    "what_is": """
        +++ what(<is>) the {x}[ <inpic>| here]
        what(<is>) the {x} (called|supposed to be)
        (which|what) <thing> is the {x}
        name the {x}.
        the {x} is what
        <tell> what the {x} is
        what exactly is the {x}
        [the ]{x}: what is it
        {x}
        ! (can|could) you (identify|name) the {x}[ for me]
        ! what would you call the {x}
        ! there's a {x}, what is it
        ! what might the {x} be
    """,
    "most": """
        +++ (what<is>|which is) the {best} (thing|object|item|one)[ <inpic>| here]
        + (which|what) <thing> is[ the] {best}[ <inpic>]
        what(<is>) {best}
        (which|what) one is[ the] {best}
        the {best} <thing>[ <inpic>]
        {best} <thing>
        name the {best} <thing>[ <inpic>].
        <tell> (what the {best} <thing> is|which <thing> is the {best})
        the {best} (one|<thing>) is what
        of all [the ]<things>, (which|what) is the {best}
        what do you see as the {best} <thing>
        (find|show me|identify) the {best} <thing>[ <inpic>].
        ! (among|between|from) (these|the) <things>, (which|what)( one|) is {best}
        ! is there a {best} <thing>, and what is it
        ! what would be the {best} <thing> (here|<inpic>)
        ! i mean the {best} <thing>: what is it
    """,
    "most_end": """
        ++ (what|which) <thing> is (furthest|farthest) {side}
        (what<is>|which is) the <thing> (furthest|farthest) {side}[ of <pic>]
        what is (most|all the way) {side}
        the (one|<thing>) (furthest|farthest) {side}
        ! (which|what) <thing> (lies|is) closest to the {end}[ edge| border]
        ! what comes (nearest|closest) to the {end} (edge|border|side)
    """,
    "list": """
        +++ (which|what) (<things>|of the <things>|of these) are {xs}
        + (what|which) {xs} (are there|do you <see>|can you <see>|are <inpic>|are there <inpic>|are here)
        <name> [all |all the |the ]{xs}[ <inpic>| you see].
        + (which|what) {x} is (there|<inpic>|here|there <inpic>)
        (which|what) are [the ]{xs}
        show me [all ]the {xs}.
        (find|point out) (all|every one of) the {xs}.
        (what|which) <thing> is {a_x}
        {xs} <inpic>: which
        [all ]the {xs}
        <tell> (which <things> are {xs}|what {xs} you see)
        what {xs}
        list of {xs}
        ! (enumerate|go through) the {xs}[ <inpic>].
        ! which ones (would you call|count as) {xs}
        ! what is there <inpic> (in the way of|by way of) {xs}
        ! among the <things>, which are {xs}
    """,
    "ground": """
        +++ what( is|'s) the (background|backdrop) <col>[ <inpic>]
        ++ what <col> (is|is|'s|has) the (background|backdrop)[ of <pic>| <inpic>| here]
        + what( is|'s) the <col> of the (background|backdrop)[ <inpic>]
        (which|what) <col> does the background have
        (which|what) <col> is behind the <things>
        [the ]background[ <col>]
        <col> of the (background|backdrop)
        <tell> (the <col> of the background|what <col> the background is|the background <col>)
        the background is (what|which) <col>
        on (which|what) <col>[ed] background are the <things>
        what <col> is the (paper|canvas|wall|surface)[ behind (it|them|the <things>)]
        ! <name> the <col> behind (everything|the <things>).
        ! of (what|which) <col> is the background
        ! apart from the <things>, what <col> is <pic>
        ! (what|which) <col> fills the (background|rest of <pic>)
    """,
    "number_n": """
        +++ (are|are) there (exactly |precisely |){n} {xs}[ <inpic>| here]
        do you (see|count|find) (exactly |){n} {xs}
        does <pic> <has> (exactly |){n} {xs}
        there are {n} {xs}(, right|, correct|, yes or no|)
        is it true that there are {n} {xs}
        is the number of {xs} {n}
        {n} {xs}
        <tell> (if|whether) there are {n} {xs}
        are the {xs} {n}
        ! would you say there are {n} {xs}
        ! is {n} the (right|correct) number of {xs}
        ! if i count {xs}, do i get {n}
    """,
    "number_one": """
        +++ is there (only|just|exactly) one {x}[ <inpic>| here]
        (do|can) you see (only|just|exactly) one {x}
        does <pic> <has> (only|just|exactly) one {x}
        there( is|'s) (only|just) one {x}(, right|, correct|)
        (just|only|exactly) one {x}
        is it (only|just) one {x}
        <tell> (if|whether) there is only one {x}
        ! is the number of {xs} one
        ! is there a single {x} and no more
        ! no more than one {x}, right
    """,
    "number_more": """
        +++ are there more than {n} {xs}[ <inpic>| here]
        do you (see|count) more than {n} {xs}
        does <pic> <has> more than {n} {xs}
        there are more than {n} {xs}(, right|, correct|)
        more than {n} {xs}
        <tell> (if|whether) there are more than {n} {xs}
        ! does the number of {xs} exceed {n}
        ! is {n} less than the number of {xs}
        ! would you count more than {n} {xs}
    """,
    "number_less": """
        +++ are there (fewer|less) than {n} {xs}[ <inpic>| here]
        do you (see|count) (fewer|less) than {n} {xs}
        does <pic> <has> (fewer|less) than {n} {xs}
        there are (fewer|less) than {n} {xs}(, right|, correct|)
        (fewer|less) than {n} {xs}
        <tell> (if|whether) there are fewer than {n} {xs}
        ! is the number of {xs} (below|under) {n}
        ! is {n} more than the number of {xs}
        ! would you count (fewer|less) than {n} {xs}
    """,
    "number_least": """
        ++ are there at least {n} {xs}[ <inpic>| here]
        do you (see|count) at least {n} {xs}
        does <pic> <has> at least {n} {xs}
        there are at least {n} {xs}(, right|, correct|)
        at least {n} {xs}
        are there {n} or more {xs}
        ! is the number of {xs} at least {n}
        ! can i count to {n} with the {xs}
    """,
    "else": """
        +++ [and ]what else[ is there| do you see| can you see| is <inpic>| is there <inpic>]
        [and ](anything|something) else[ <inpic>| there]
        [and ]is there (anything|something) else[ <inpic>]
        [and ](which|what) other <things> (are there|do you see|are <inpic>)
        what (other <things>|more)
        [and ]the (others|other <things>|rest)
        <name> the (others|other <things>|rest).
        [and ]what are the (others|other <things>)
        <tell> what else (there is|you see)
        (do|can) you see anything else
        and (more|besides that|otherwise)
        ! [and ]what is (left|there besides it|there apart from that)
        ! [and ](besides|apart from) (that|it), what (is there|do you see)
        ! (is|was) that all, or what else
        ! go on with the (rest|others).
    """,
    "hello": """
        + (hello|hi|hey|hiya|howdy|greetings)[ there| again| model| bot| friend]
        good (morning|afternoon|evening|day)
        (hello|hi|hey), how are you[ doing]
        how are you[ doing| today]
        how is it going
        what's up
        nice to meet you
        yo
        ! (hallo|heya|welcome|salutations)
        ! how do you do
        ! (hope you are well|are you well|pleased to meet you)
    """,
    "who": """
        + who are you
        what are you
        what('s| is) your name
        are you (a robot|a human|a person|an ai|a bot|a computer|real|chatgpt|alive)
        who (made|built|trained|created) you
        (what|which) (model|ai) (are you|is this)
        tell me about yourself.
        introduce yourself.
        do you have a name
        who am i talking to
        ! (with whom|to whom) am i (talking|speaking)
        ! what should i call you
        ! say something about yourself.
        ! what sort of (model|machine|program) are you
    """,
    "can": """
        + what can (you do|i ask[ you]|you tell me)
        how can you help[ me]
        what (do you know|are you able to do|should i ask|questions can i ask)
        help[ me]
        how does this work
        what is this (page|site|demo)[ for]
        can you help me
        what are you (good at|for|capable of)
        which (questions|words|things) do you (know|understand)
        give me an example[ question].
        ! what are your (skills|abilities|limits)
        ! what kind of questions do you answer
        ! how do i use (you|this)
        ! what am i (allowed|supposed) to ask
    """,
    "thanks": """
        + (thanks|thank you|thx|ty|cheers)[ a lot| very much| so much|, that helps]
        (great|perfect|nice|good job|well done|cool|awesome|wow|very good)
        (thanks|thank you), (great|perfect|that was right|bye for now)
        that is (right|correct|good)
        you are (great|right|smart|clever|funny)
        ! (much appreciated|many thanks|i am grateful|good work|brilliant|fantastic)
        ! you (did well|got it|helped me a lot)
    """,
    "bye": """
        + (bye|goodbye|bye bye|see you|see you later|good night|ciao)
        (i have to go|i am leaving|that's all|that is all for now)
        have a (nice|good) day
        talk to you later
        ! (farewell|so long|take care|until next time|catch you later)
        ! (i am done here|let's stop here|time to go)
    """,
    # Cannot be told from the picture.
    "cannot_see": """
        + who (painted|drew|made|took|created) (this|it|<pic>)
        + why is the {x} (sad|happy|there|here|alone|{hue}|angry|so big|so small)
        + what does the {x} (think|want|eat|say|feel|dream of|like|cost|weigh)
        + (where|when) was (this|it|<pic>) (taken|made|painted|drawn)
        how (old|heavy|expensive|fast|tall|clever|tasty) is the {x}
        what(<is>) the {x}('s name| called by its owner|'s price|'s owner)
        is the {x} (happy|sad|alive|hungry|tired|friendly|dangerous|expensive|fresh|broken|new|real)
        who (owns|bought|made|invented|lost) the {x}
        what (happens|happened|comes) (next|before|after this|afterwards)
        (which|what) (artist|painter|camera|country|city|year|season|language) is (this|it|it from)
        what (time|day|month|year|season) is it (in|on) <pic>
        how much does the {x} (cost|weigh)
        what is (behind|inside|under) <pic>
        what(<is>) the {x} made of
        what is the (meaning|story|purpose|mood|title) of (this|<pic>)
        do you like (<pic>|it|the {x})
        is (this|<pic>) (beautiful|art|nice|real|old|ai generated)
        what (noise|sound) does the {x} make
        why (is|are) there {a_x}
        what is the {x} (doing|looking at|thinking about|waiting for|used for|good for)
        ! how does the {x} (feel|smell|taste|sound)
        ! (for what reason|how come) (is the {x} there|was this made)
        ! which museum (has|shows|owns) (this|<pic>)
        ! (what age|what price) has the {x}
        ! what was the (artist|painter|author) (thinking|feeling|trying to say)
        ! will the {x} (fall|move|win|stay|grow)
        ! where (does the {x} come from|did you get <pic>)
        ! what did the {x} do (yesterday|before|last night)
    """,
    # Not about the picture at all.
    "cannot_do": """
        + write (me |)(a|another) (poem|story|song|letter|joke|program|email|essay|haiku)[ about (it|the {x}|love|rain|me)].
        + tell me a (joke|story|secret|fairy tale|riddle).
        + what is {d} (+|plus|times|minus|x) {d}
        who is the (president|king|queen|boss|best singer)[ of (france|china|america|the world)]
        what is the capital of (france|germany|italy|spain|china|japan|england)
        how is the weather[ today| tomorrow]
        what time is it
        what day is (it|today)
        translate (this|it|hello|the answer)[ into (french|german|spanish)].
        do you (love|like|hate|know) me
        what is the meaning of life
        sing[ me] a song.
        play (a game|music|chess)[ with me].
        how do i (cook rice|get rich|learn english|fix my computer|lose weight)
        (draw|paint|make|generate) (me |)(a|another) (picture|dog|house|tree|painting).
        (remove|change|delete|move|turn|paint) the {x}[ please].
        where do you live
        who won the (match|game|election|world cup)
        solve {d} (+|plus|times|minus) {d}.
        (what|how) is {d} divided by {d}
        how old are you
        what is your favourite (colour|food|animal|song|film)
        are you (happy|hungry|tired|sad|married|in love)
        can you (dance|sing|cook|drive|swim|fly|lie)
        (buy|order|book|send) me (a pizza|a car|a ticket|flowers).
        i (love you|am sad|am bored|am hungry|hate you)
        what is (love|time|happiness|money|gravity|electricity)
        ! compose a (tune|sonnet|limerick|novel)[ about (it|life)].
        ! (calculate|compute|add) {d} (and|to|with) {d}.
        ! (recommend|suggest) (a book|a film|a restaurant|a hotel)[ for me].
        ! what (happened in|was the year) {d}{d}{d}{d}
        ! (explain|teach me) (physics|chess|mathematics|quantum theory|how cars work).
        ! who (wrote|directed|sang) (hamlet|titanic|yesterday|faust)
        ! do my (homework|taxes|shopping).
        ! how (far|big) is (the moon|the sun|london|mars)
    """,
    "gibberish": """
        + {junk}
        {junk} {junk}
        {junk} {junk} {junk}
        qué (es esto|ves|hay en la imagen|color es)
        (qu'est-ce que c'est|que vois-tu|bonjour|où est le chat|combien y en a-t-il)
        (was ist das|was siehst du|wie viele sind es|guten tag|welche farbe hat es|wo ist der hund)
        (che cosa è|cosa vedi|quanti sono|dov'è il gatto|ciao bella)
        (o que é isso|quantos são|onde está)
        (vad är det|hvad er det|wat is dit|co to jest|bu ne|apa ini)
        (что это|сколько|これは何ですか|いくつありますか|이것은 무엇입니까|ما هذا|यह क्या है)
        (?|??|???|...|!|!!)
        ! (dónde está el perro|cuántos objetos hay|hola, dime qué ves)
        ! (de quelle couleur est-ce|décris l'image|y a-t-il un chien)
        ! (gibt es eine katze|beschreibe das bild|was ist links)
        ! (какого цвета|何色ですか|무슨 색이에요|que cor é)
        ! {junk}{junk}
    """,
    "hue_unknown": """
        ++ what <col> (is|is|'s) <the> {x}[ <inpic>]
        what(<is>) the <col> of <the> {x}
        (which|what) <col> does the {x} have
        [the ]<col> of [the ]{x}
        {x} <col>
        <tell> the <col> of <the> {x}
        ! of (what|which) <col> is the {x}
        ! describe the <col> of the {x}.
    """,
}  # fmt: skip
