"""English questions about the world: words and rules of :mod:`instructblip.training.grammar`.

Places to fill in: {x} cat, {a_x} a cat, {xs} cats, the same with y; {place} at the top left;
{side} on the left; {how} to the left of, bigger; {best} biggest; {n} three.
"""

from __future__ import annotations

WORDS: dict[str, str] = {
    "col": "(colour|color)",
    "pic": "(the|the|the|this) (image|picture|photo|scene|drawing|picture|image|pic)",
    "inpic": "(in|in|in|on) <pic>",
    "thing": "(thing|object|item|thing|object)",
    "things": "(things|objects|items|things|objects)",
    "the": "(the|the|the|the|the|the|that|)",
    "is": "( is|'s)",
    "can": "(can|could|would) you[ please]",
    "tell": "(tell me|say|can you tell me|could you tell me|please tell me|do you know|i want to know|i would like to know)",
    "see": "(see|spot|find|notice|make out|recognise|detect)",
    "has": "(show|contain|have|include)",
    "of": "(kind|type|sort|category|class)",
    "name": "(name|list|tell me|give me)",
}  # fmt: skip

RULES: dict[str, str] = {
    # Small words around a question: {q} is the question.
    "frame": """
        (hi|hey|hello|hi there)(,|!|) {q}
        (so|ok|okay|well|now|alright|um|hmm|right|then|great|good|cool)(,|) {q}
        (please|please,|excuse me,|sorry,|one question:|next question:|question:|another one:) {q}
        {q}(, please| please|, thanks| then|, do you think| now|, my friend|, exactly)
        ! (quick question[ for you]:|just curious,|let's see,|i wonder,|tell me,|be honest,) {q}
        ! {q}(, if you can| in your view|, mate|, i wonder|, in your opinion)
    """,
    # The only thing of a picture.
    "what": """
        ++ what(<is>) (this|that|it|shown here|depicted)
        what (is|'s) (the|this|that) <thing>[ here| <inpic>]
        (which|what) <thing> (is|do you see|can you see) (here|<inpic>)
        name (the|this|that) <thing>[ <inpic>].
        (identify|recognise) (this|it|the <thing>|the <thing> <inpic>).
        <tell> what (this|that|it) is
        what am i looking at[ here]
        what (is|'s) (this|that) (called|supposed to be)
        what's the name of (this|that|the <thing>|this <thing>)
        what might (this|that) be
        (this|that) is what
        what have we (here|got here)
        ! what would you call (this|that|this <thing>|the <thing>)
        ! (can|could) you (identify|name|recognise) (this|that|it|the <thing>)[ for me]
        ! what do we call (this|that|this <thing>)
        ! guess what (this|that) is.
    """,
    # The only thing, or all of them.
    "what_in": """
        ++ what(<is>) (in|on) <pic>
        + what do you <see>[ here| <inpic>]
        what can you <see>[ here| <inpic>]
        what does <pic> (show|contain|depict|display)
        <tell> what (you see|is in <pic>|<pic> shows|you can see)
        what is (there|shown|visible|in here|to be seen)[ <inpic>]
        what all is <inpic>
        what can be seen[ <inpic>]
        what(<is>) the content of <pic>
        what did you <see>[ <inpic>]
        ! what is it that (you see|<pic> shows|is shown)[ here]
        ! (<pic>|it) shows what
        ! what has been (drawn|painted|put) <inpic>
        ! what would you say is <inpic>
    """,
    # All things, asked as if it were one.
    "what_this": """
        ++ what(<is>) (this|shown here)
        what am i looking at[ here]
        what (have|do) we (got|have) here
        what is this (image|picture|photo|drawing) of
        ! what do you make of (this|<pic>)
        ! what would this be
    """,
    "what_at": """
        ++ what(<is>) {place}[ of <pic>]
        what(<is>) the <thing> {place}[ of <pic>]
        what do you <see> {place}
        what can (you|i) see {place}
        (which|what) <thing> is {place}
        name the <thing> {place}.
        {place}, what (is there|do you see|is it)
        what (can be seen|is shown|is drawn|is found) {place}
        <tell> what is {place}
        what is the <thing> (that is|which is|located|placed) {place}
        what (is|sits|stands|lies) {place} <inpic>
        (thing|object|item) {place}
        {place}
        the (one|<thing>) {place} is what
        ! what would you say is {place}
        ! (can|could) you (identify|name) the (one|<thing>) {place}
        ! {place} there is what
        ! what is it that is {place}
        ! describe what (is|you see) {place}.
    """,
    "kind": """
        ++ what <of> of <thing> is (this|it|that|shown|in <pic>|here)
        what <of> is (this|it|that|the <thing>)
        (which|what) <of> of <thing> do you <see>[ here| <inpic>]
        (which|what) <of> does (it|this|the <thing>|this <thing>) belong to
        <tell> what <of> of <thing> (this|it|that) is
        the <of> of (the|this) <thing>
        (this|it|that) is what <of> of <thing>
        what <of> of <thing> does <pic> show
        what <of> of <things> (is|are) (this|these|it)
        <of> of <thing>
        what (is|'s) the <of> of (this|the|that) <thing>
        ! to what <of> does (this|it|the <thing>) belong
        ! how would you (classify|categorise) (this|it|the <thing>)
        ! <can> (name|give) the <of> of (this|the) <thing>
        ! (under|in|into) (which|what) <of> (does it fall|would you put it|does this fall)
    """,
    "kind_at": """
        ++ what <of> of <thing> is {place}[ of <pic>]
        what <of> is the (one|<thing>) {place}
        (which|what) <of> of <thing> do you <see> {place}
        (which|what) <of> does the <thing> {place} belong to
        <tell> what <of> of <thing> is {place}
        the <of> of the <thing> {place}
        the <thing> {place} is (what|which) <of>
        what <of> of <thing> (sits|can be seen|is shown|is there) {place}
        <of> of <thing> {place}
        {place}, what <of> of <thing> is (it|there)
        ! to what <of> does the (one|<thing>) {place} belong
        ! how would you (classify|categorise) the (one|<thing>) {place}
        ! <can> (name|give) the <of> of the <thing> {place}
        ! under what <of> does the <thing> {place} fall
    """,
    "colour": """
        +++ what <col> (is|is|'s) <the> {x}[ <inpic>| here]
        + what(<is>) the <col> of <the> {x}[ <inpic>]
        (which|what) <col> does the {x} have
        (which|in which) <col> is <the> {x}[ <inpic>]
        <the> {x} is (what|which) <col>
        <tell> (the <col> of <the> {x}|what <col> the {x} is|which <col> the {x} has)
        [the ]<col> of [the ]{x}
        {x} <col>
        what <col> do you see on the {x}
        how is the {x} (coloured|colored|painted)
        what's the {x}'s <col>
        <name> the <col> of <the> {x}.
        what <col> would you say the {x} is
        what <col> (was|is) the {x} (painted|drawn) in
        ! (can|could) you (see|make out) (what|which) <col> the {x} (is|has)
        ! of (what|which) <col> is the {x}
        ! the {x} (comes|is shown) in (what|which) <col>
        ! describe the <col> of the {x}.
        ! if you look at the {x}, what <col> is it
    """,
    "colour_only": """
        +++ what <col> (is|is|'s) (it|this|that|the <thing>|the {x}|this {x}|the <thing> <inpic>|the {x} <inpic>)
        + what(<is>) the <col> of (it|this|the <thing>|the {x}|the {x} <inpic>|the <thing> <inpic>)
        (which|what) <col> does (it|this|the <thing>|the {x}) have
        (which|in which) <col> is (it|this|the <thing>|the {x})
        (it|this|the {x}|the <thing>) is (what|which) <col>
        <tell> (its <col>|the <col> of the {x}|what <col> it is|what <col> the <thing> is)
        [its |the |what |which ]<col>
        <col> of (it|the {x}|{x}|the <thing>|the shown <thing>)
        {x} <col>
        what <col> is (shown|present|used|the shown {x}|the {x} shown)
        what <col> {x} (is it|is there|is this|is in <pic>|do you see)
        what <col> {x} does <pic> <has>
        ! of (what|which) <col> is (it|this|the {x}|the <thing>)
        ! (it|this|the {x}) (comes|is shown) in (what|which) <col>
        ! (can|could) you (see|make out) (what|which) <col> (it|this|the {x}) (is|has)
        ! describe the <col> of (it|this|the <thing>|the {x}).
    """,
    "side": """
        +++ what(<is>) {side}[ of <pic>| here]
        what(<is>) the <thing> {side}[ of <pic>]
        what do you <see> {side}
        what (can you see|can i see|can be seen) {side}
        (which|what) <thing> is {side}[ of <pic>]
        name (what is|the <thing>) {side}.
        {side}
        {side}, what (is there|do you see|is it)
        what (stands|sits|lies|is placed|is shown|is drawn) {side}
        <tell> what is {side}
        (thing|object|item) {side}
        the (one|<thing>) {side} is what
        what is the <thing> (that is|which is) {side}
        what is there {side} of <pic>
        ! what would you say is {side}
        ! (can|could) you (identify|name) the (one|<thing>) {side}
        ! {side} there is what
        ! what is it that is {side}
        ! describe what (is|you see) {side}.
    """,
    "count_all": """
        +++ how many <things> (are there|are there here|are there <inpic>|are <inpic>|do you <see>|can you <see>)
        + how many <things>[ <inpic>]
        how many (are there|do you see|in total|altogether)[ <inpic>]
        count [all |all the |the ](<things>|<things> <inpic>).
        what(<is>) the [total ](number|count) of <things>[ <inpic>]
        <tell> (how many <things> there are|the number of <things>)
        how many <things> does <pic> <has>
        [the ]number of <things>[ <inpic>]
        (what number|what amount) of <things> (is there|are there|do you see)
        how many different <things> (are there|do you see)
        <things> count
        <can> count [all ]the <things>[ <inpic>]
        there are how many <things>
        ! how many <things> (make up|are drawn in|appear in) <pic>
        ! (could|can) you give me the number of <things>
        ! <pic> <has>s how many <things>
        ! if you count the <things>, (how many|what number) do you get
    """,
    "count": """
        +++ how many {xs} (are there|are there here|are there <inpic>|are <inpic>|do you <see>|can you <see>)
        + how many {xs}[ <inpic>]
        count (all |all the |the |){xs}[ <inpic>].
        what(<is>) the [total ](number|count) of {xs}[ <inpic>]
        <tell> (how many {xs} there are|the number of {xs})
        how many {xs} does <pic> <has>
        [the ]number of {xs}[ <inpic>]
        what number of {xs} (is there|are there|do you see)
        <things> that are {xs}: how many
        {xs}: how many
        {xs} count
        <can> count the {xs}[ <inpic>]
        there are how many {xs}
        ! how many {xs} (make up|are drawn in|appear in) <pic>
        ! (could|can) you give me the number of {xs}
        ! <pic> <has>s how many {xs}
        ! how often do you see {a_x}[ <inpic>]
    """,
    "caption": """
        + describe (<pic>|this|it|what you see)[ briefly| in one sentence| in a few words| for me].
        (give|write|make)[ me] a[ short] (caption|description)[ for <pic>| of <pic>].
        caption (<pic>|this|it).
        + (what|which) <things> (are there|are <inpic>|do you <see>|can you <see>|are shown|are there <inpic>)
        <name> [all |all the |the ](<things>|<things> <inpic>|<things> you see).
        what all is (there|<inpic>)
        [a |short ](caption|description)[ please]
        <can> (describe|caption) (<pic>|this|it)[ for me]
        what (are|'re) [all ]the <things>[ <inpic>]
        <tell> (what things you see|everything you see|what <pic> contains|all the <things> <inpic>)
        (all|every) <things>
        what are (these|those)
        what (things|objects) does <pic> <has>
        summarise <pic>.
        i see what <inpic>
        everything <inpic>
        [a |make a |give me a ]list of [all |the ](things|objects|everything)[ <inpic>]
        ! how would you (describe|caption|summarise) <pic>
        ! (enumerate|go through) [all ](the|) <things>[ <inpic>].
        ! put <pic> (in|into) words.
        ! if i could not see <pic>, what would you say is (there|in it)
        ! (which|what) <things> make up <pic>
        ! talk about (what is <inpic>|<pic>).
    """,
    "detail": """
        ++ describe (<pic>|this|what you see|everything) in (detail|full|full detail).
        (give|write|make)[ me] a (detailed|full|long|complete|exact) (caption|description)[ of <pic>].
        [tell me |say ](everything and where it is|what is where|where everything is|where each thing is)
        describe (every|each) <thing> and (its|the) (place|position).
        <name> all <things> (with|and) their (places|positions).
        what is where[ <inpic>]
        where is (everything|each thing|every <thing>|what)
        <can> describe (<pic>|everything) in detail
        detailed (caption|description)[ of <pic>]
        (what|which) <things> are (there|<inpic>) and where[ are they]
        explain <pic> in (detail|full).
        i want (all the details|a detailed description)[ of <pic>].
        in detail, what do you see
        ! (which|what) <thing> is in which place
        ! <pic>, (in every detail|as exactly as you can).
        ! where do you see which <thing>
        ! tell me the (place|position) of (everything|all <things>|each <thing>).
        ! leave nothing out: what is <inpic> and where
    """,
    "where": """
        +++ where( is|'s) <the> {x}[ <inpic>| here]
        where (can|do) (i|you|we) (find|see|spot) <the> {x}[ <inpic>]
        (in|at) (which|what) (place|position|spot|part of <pic>) is the {x}
        what(<is>) the (place|position|location) of <the> {x}
        <tell> where [the ]{x} is[ <inpic>]
        where <inpic> is <the> {x}
        (find|locate|show me) <the> {x}[ <inpic>].
        {x} where
        where {x}
        <the> {x} is where
        {x} (position|location|place)
        [the ](position|location|place) of [the ]{x}
        on which side is the {x}
        where (is|'s) the {x} (placed|located|positioned|drawn|sitting)
        i (cannot|can't) find the {x}, where is it
        which (corner|side|part|place) is the {x} (in|at|on)
        ! (can|could) you (point out|point me to|locate) the {x}[ for me]
        ! whereabouts is the {x}[ <inpic>]
        ! where (should|must|do) i look (for|to find|to see) the {x}
        ! give me the (place|position|location) of the {x}.
        ! the {x} can be (found|seen) where
    """,
    "exists": """
        +++ is there {a_x}[ here| <inpic>| anywhere| somewhere]
        + are there (any|some) {xs}[ here| <inpic>]
        (do|can|could) you <see> {a_x}[ <inpic>| here| anywhere]
        (do|can) you <see> any {xs}[ <inpic>| here]
        does (<pic>|this|it) <has> {a_x}
        does (<pic>|this|it) <has> any {xs}
        is {a_x} (there|present|shown|visible|here|<inpic>|present <inpic>|in it)
        can {a_x} be (seen|found|spotted)[ <inpic>| here]
        any {xs}[ <inpic>| here| there]
        any {x}[ <inpic>| here]
        {a_x}[ <inpic>| here| there]
        <tell> (if|whether) there is {a_x}[ <inpic>]
        <tell> (if|whether) you <see> {a_x}
        <pic> (has|contains|shows) {a_x}
        (there is|there's|you see|i see|it shows) {a_x}(, right|, correct|, isn't there|, yes or no|)
        is one of the <things> {a_x}
        is any of the <things> {a_x}
        (is this|is it) a picture (of|with) {a_x}
        has (it|<pic>) got {a_x}
        {a_x}, yes or no
        ! (would|do) you say (there is|you see) {a_x}
        ! is it true that (there is|<pic> shows) {a_x}
        ! does {a_x} (appear|show up|occur|exist)[ <inpic>| anywhere]
        ! (check|look) (if|whether) there is {a_x}.
        ! among the <things>, is there {a_x}
        ! can i (find|see) {a_x} (somewhere|<inpic>)
        ! is {a_x} part of <pic>
    """,
    "not": """
        +++ is there (no|not a|no) {x}[ here| <inpic>]
        + is there not {a_x}[ here| <inpic>]
        + are there no {xs}[ here| <inpic>]
        + does (<pic>|it|this) not <has> {a_x}
        does (<pic>|it|this) <has> no {x}
        do you (not see|not find|see no|find no) {x}
        (is|are) no {x} (present|there|shown|visible|here|<inpic>|present <inpic>)
        is {a_x} (not|absent|not there|not present|missing|not shown|not visible|not <inpic>)
        there( is|'s) no {x}(, right|, correct||, is there| <inpic>)
        there are no {xs}(, right|, correct|)
        <pic> (has|shows|contains) no {x}(, right|)
        (<pic>|it) does( not|n't) <has> {a_x}(, right|, correct|)
        no {x}[ here| <inpic>]
        no {xs}[ here| <inpic>]
        not {a_x}
        <tell> (if|whether) there is no {x}
        without {a_x}
        ! is it true that there (is|'s) no {x}
        ! is <pic> (without|free of) {a_x}
        ! (would|do) you say there is no {x}
        ! is {a_x} nowhere to be (seen|found)
        ! so there is not {a_x}(, correct| at all)
    """,
    "not_but": """
        ++ is(n't|nt) there {a_x}[ here| <inpic>]
        (don't|can't|do not) you <see> {a_x}
        does(n't|nt) (<pic>|it|this) <has> {a_x}
        are(n't|nt) there any {xs}[ here| <inpic>]
        isn't {a_x} (there|present|shown|here|<inpic>)
        isn't that {a_x} <inpic>
        ! wouldn't you say there is {a_x}
        ! isn't one of the <things> {a_x}
        ! isn't it true that there is {a_x}
    """,
}  # fmt: skip
