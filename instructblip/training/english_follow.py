"""English rules of questions about two things, and of those that go on from the turn before."""

from __future__ import annotations

RULES: dict[str, str] = {
    "colour_follow": """
        +++ [and |so ]what <col> (is|is|is) (it|that|this|that one|this one|that <thing>|the <thing>)
        + [and |so ]what(<is>) (its <col>|the <col> of (it|that|that one|that <thing>))
        [and ](which|what) <col> does (it|that|that one) have
        [and ](which|in which) <col> is (it|that|this|that one)
        (it|that|that one) is (what|which) <col>
        [and ](its|the) <col>
        [and |now ]<tell> (its <col>|what <col> it is|what <col> that is)
        [and ](what|which) <col>
        and <col>
        ! [and ]of (what|which) <col> is (it|that|that one)
        ! [and ]how is (it|that|that one) (coloured|colored|painted)
        ! (can|could) you (see|make out) (what|which) <col> (it|that) (is|has)
        ! describe its <col>.
    """,
    "what_follow": """
        +++ [and |so ]what(<is>) (it|that|this|that one|this one|that <thing>)[ exactly| called]
        [and |so ]what exactly is (it|that|this)
        [and ](what|what's) its name
        [and ](which|what) (one|<thing>) is (it|that)
        name (it|that|that one|that <thing>).
        [and ]<tell> what (it|that) is
        [and ](it|that) is what
        [so ]what do you call (it|that)
        which one exactly
        more (exactly|precisely)
        ! (can|could) you (identify|name) (it|that|that one)[ for me]
        ! (can|could) you be more (specific|exact|precise)
        ! what would you call (it|that|that one)
        ! what (thing|object) might (it|that) be
    """,
    "side_follow": """
        +++ and {side}
        and what(<is>) {side}
        (what|how) about {side}
        (what|how) about the (one|<thing>) {side}
        and what do you <see> {side}
        and the (one|<thing>) {side}
        now {side}
        (then|so|now) what(<is>) {side}
        and which <thing> is {side}
        also {side}
        same for {side}
        ! and if you look {side}
        ! {side} too
        ! and what would you say is {side}
        ! and (can|could) you name the (one|<thing>) {side}
    """,
    "count_follow": """
        ++ and (how many|) {xs}
        (what|how) about {xs}
        and how many {xs} (are there|do you see)
        and the {xs}
        and how about {xs}
        {xs} too
        now {xs}
        then {xs}
        also the {xs}
        {xs}
        ! and the number of {xs}
        ! and if you count {xs}
    """,
    "where_follow": """
        +++ [and |so ]where( is|'s) (it|that|that one|this|that <thing>|this one)[ <inpic>]
        [and ]where (can|do) (i|you|we) (find|see|spot) (it|that|that one)
        [and ](in|at) (which|what) (place|position|part of <pic>) is (it|that)
        [and ]what(<is>) its (place|position|location)
        [and |now ]<tell> where (it|that|that one) is
        [and ](its|the) (position|location|place)
        [and ]where
        (it|that) is where
        (find|locate) (it|that).
        where exactly
        ! (can|could) you (point it out|locate it|point to it)
        ! [and ]whereabouts[ is it| is that]
        ! [and ]where (should|must) i look for (it|that)
        ! on which side is (it|that)
    """,
    "where_also": """
        ++ and <the> {x}
        (what|how) about <the> {x}
        and where( is|'s) the {x}
        the {x}
        then the {x}
        now the {x}
        and where do you see the {x}
        ! same question for the {x}
        ! and whereabouts is the {x}
        ! and for the {x}
    """,
    "colour_also": """
        ++ and <the> {x}
        (what|how) about <the> {x}
        and what <col> is the {x}
        the {x}
        then the {x}
        now the {x}
        and the {x}'s <col>
        and the <col> of the {x}
        ! same question for the {x}
        ! and of what <col> is the {x}
        ! and for the {x}
    """,
    "exists_follow": """
        +++ and {a_x}
        (what|how) about {a_x}
        and (is there|do you see|can you see|are there any) {a_y}
        or {a_x}
        also {a_x}
        maybe {a_x}
        and any {xs}
        {a_x} too
        and perhaps {a_x}
        what if i ask for {a_x}
        any {xs} too
        and do we have {a_x}
        {a_x} as well
        (what|how) about any {xs}
        is there also {a_x}
        ! {a_x} perhaps
        ! and would you say there is {a_x}
        ! does {a_x} appear too
        ! and can i find {a_x} as well
    """,
    "relation": """
        +++ is <the> {x} {how} <the> {y}[ <inpic>| here]
        (do|can) you see the {x} {how} the {y}
        does the {x} (stand|lie|sit|appear) {how} the {y}
        can the {x} be (found|seen) {how} the {y}
        (would|could) you say the {x} is {how} the {y}
        the {x} (is|'s) {how} the {y}(, right|, correct|, isn't it|)
        is it true that the {x} is {how} the {y}
        <tell> (if|whether) the {x} is {how} the {y}
        {x} {how} {y}
        is the {x} (placed|located|positioned|drawn|somewhere) {how} the {y}
        true or false: the {x} is {how} the {y}
        do you think the {x} is {how} the {y}
        is the {x} (more|further|anywhere|somewhere) {how} the {y}
        (is|so is) it the {x} that is {how} the {y}
        does <pic> show the {x} {how} the {y}
        is <the> {x} {how} <the> {y}, yes or no
        i think the {x} is {how} the {y}(, right|, is that so|, am i right)
        ! is the (place|position) of the {x} {how} the {y}
        ! (compared to|seen from) the {y}, is the {x} {how} it
        ! (does one find|do we find) the {x} {how} the {y}
        ! (check|look) (if|whether) the {x} is {how} the {y}.
    """,
    "relation_follow": """
        +++ [and |so ]is (it|that|that one|that <thing>) {how} <the> {y}
        [and ]does (it|that|that one) (stand|lie|sit|appear) {how} the {y}
        [and ](do|can) you see (it|that) {how} the {y}
        (it|that) is {how} the {y}(, right|, isn't it|, correct|)
        is it true that it is {how} the {y}
        (would|could) you say it is {how} the {y}
        {how} the {y}
        and {how} the {y}
        <tell> (if|whether) it is {how} the {y}
        is it (placed|located|somewhere) {how} the {y}
        do you think (it|that) is {how} the {y}
        i think it is {how} the {y}(, right|, am i right)
        ! is its (place|position) {how} the {y}
        ! (compared to|seen from) the {y}, is (it|that) {how} it
        ! do we find (it|that) {how} the {y}
        ! (check|look) (if|whether) it is {how} the {y}.
    """,
    "compare": """
        ++ (which|what) is {how}, <the> {x} or <the> {y}
        (which|what) (one|<thing>) is {how}(,|:|) the {x} or the {y}
        is the {x} or the {y} {how}
        [the ]{x} or [the ]{y}, (which|what) is {how}
        of the {x} and the {y}, which[ one] is {how}
        <tell> (which|what) is {how}, the {x} or the {y}
        which of the two is {how}, the {x} or the {y}
        {how}: [the ]{x} or [the ]{y}
        who is {how}, the {x} or the {y}
        which is the {how}[ one| <thing>], the {x} or the {y}
        what looks {how}, the {x} or the {y}
        which[ one] (looks|seems|appears) {how}, <the> {x} or <the> {y}
        compare the {x} (and|with) the {y}: which is {how}
        which <thing> is the {how} one, <the> {x} or <the> {y}
        (is it|would it be) the {x} or the {y} that is {how}
        ! (between|comparing) the {x} and the {y}, which is {how}
        ! <pic> has the {x} and the {y}: which is {how}
        ! (can|could) you say which is {how}, the {x} or the {y}
        ! the {how} of the {x} and the {y} is which
    """,
    "compare_yes": """
        +++ is <the> {x} {how} than <the> {y}[ <inpic>| here]
        the {x} is {how} than the {y}(, right|, correct|, isn't it|)
        is it true that the {x} is {how} than the {y}
        does the {x} look {how} than the {y}
        would you say the {x} is {how} than the {y}
        <tell> (if|whether) the {x} is {how} than the {y}
        {x} {how} than {y}
        ! compared to the {y}, is the {x} {how}
        ! (check|look) (if|whether) the {x} is {how} than the {y}.
        ! next to the {y}, does the {x} seem {how}
    """,
    "compare_follow": """
        ++ [and |so ]is (it|that|that one) {how} than <the> {y}
        (it|that) is {how} than the {y}(, right|, isn't it|)
        and {how} than the {y}
        does (it|that) look {how} than the {y}
        would you say it is {how} than the {y}
        <tell> (if|whether) it is {how} than the {y}
        ! compared to the {y}, is (it|that) {how}
        ! next to the {y}, does it seem {how}
    """,
    "size_follow": """
        ++ how big is (it|that|that one) compared (to|with) the {y}
        [and ]is (it|that|that one) (bigger or smaller|smaller or bigger) than the {y}
        how does its size compare (to|with) the {y}
        compared (to|with) the {y}, how big is it
        [and ](bigger or smaller|smaller or bigger) than the {y}
        ! (next to|beside) the {y}, how (big|large) is (it|that)
        ! is its size (above or below|over or under) that of the {y}
    """,
}  # fmt: skip
