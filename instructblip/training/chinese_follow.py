"""Chinese rules of questions about two things, and of those that go on from the turn before."""

from __future__ import annotations

RULES: dict[str, str] = {
    "colour_follow": """
        +++ [那|那么]<it>是<hue>
        + [那]<it>的颜色[是什么|呢]
        [是]<hue>
        [那]颜色呢
        [那]<it><hue>
        <tell>它的颜色
        那是<hue>
        它什么色
        ! [那]它(属于|算)(什么颜色|哪种颜色)
        ! (你看|你觉得)它是<hue>
        ! 它(画成|用的是)(什么颜色|哪种颜色)
    """,
    "what_follow": """
        +++ [那|那么]<it>是<what>[东西]
        [那|那么]它具体是<what>
        [那]它(叫什么|叫什么名字)
        具体是<what>
        [那]它是哪个(东西|物体)
        <tell> 它是<what>
        那个<thing>是<what>
        那是<what>[东西]
        到底是<what>
        ! (你看|你说|你觉得)(它|那个)(是|像)<what>
        ! (准确|详细)[地]说是<what>
        ! (认一认|猜一猜)它是<what>
    """,
    "side_follow": """
        +++ [那|那么|还有]{side}呢
        [那|那么]{side}(是|有)<what>
        {side}的呢
        那<pic>的{side}呢
        那{side}的(东西|物体)呢
        还有{side}(是|有)<what>
        再说{side}
        那{side}
        ! 换成{side}呢
        ! {side}又(是|有)<what>
        ! 再看{side}，是<what>
    """,
    "count_follow": """
        ++ [那|那么]{xs}呢
        [那|那么]有<many>{m}{xs}
        [那]{xs}有<many>{m}
        那<many>{m}{xs}
        ! 换成{xs}呢
        ! 再数数{xs}
    """,
    "where_follow": """
        +++ [那|那么]<it><where>
        [那]<it>的位置[在哪里|在哪|是哪里|呢]
        [那]它在(图|图片|画面)的(哪里|哪儿|什么位置|哪边)
        <where>
        [那]位置呢
        <tell> 它<where>
        那个<thing><where>
        ! 它(画在|放在)(哪里|哪儿|什么地方)
        ! (你看|你说)它<where>
        ! <help>指[一下|出]它的位置。
    """,
    "where_also": """
        ++ [那|那么]{x}呢
        [那|那么]{x}<where>
        {x}呢
        那个{x}呢
        ! 换成{x}呢
        ! {x}又<where>
    """,
    "colour_also": """
        ++ [那|那么]{x}呢
        [那|那么]{x}是<hue>
        {x}呢
        那个{x}呢
        那{x}的颜色呢
        ! 换成{x}呢
        ! {x}又是<hue>
    """,
    "exists_follow": """
        +++ [那|那么]{a_x}呢
        [那|那么]有{a_x}<ma>
        [那]有没有{a_x}
        还有{a_x}<ma>
        也有{a_x}<ma>
        那<inpic>有{a_x}<ma>
        ! 换成{a_x}呢
        ! (再看看|再找找)有没有{a_x}
        ! {a_x}也(有|在)<ma>
    """,
    "relation": """
        +++ {x}在{y}的{how}<ma>
        {x}是(在|不是在){y}[的]{how}[吗]
        {x}在{y}{how}<ma>
        <here>[的]{x}在{y}[的]{how}<ma>
        {x}是不是在{y}[的]{how}
        (那个|这个|那{m}){x}在{y}[的]{how}<ma>
        {x}在{y}[的]{how}<right>
        {x}(位于|处在){y}[的]{how}<ma>
        <tell>{x}是不是在{y}[的]{how}
        {x}在不在{y}[的]{how}
        {x}是否在{y}[的]{how}
        你能看到{x}在{y}[的]{how}<ma>
        我觉得{x}在{y}[的]{how}<right>
        <here>{x}[是]在{y}{how}还是不在
        ! (你看|你说|你觉得){x}在{y}的{how}<ma>
        ! {y}的{how}是{x}，对不对
        ! {x}(画在|放在){y}[的]{how}<ma>
        ! 说{x}在{y}的{how}，(对吗|对不对)
    """,
    "relation_follow": """
        +++ [那]<it>在{y}[的]{how}<ma>
        [那]它是(在|不是在){y}[的]{how}[吗]
        [那]它是不是在{y}[的]{how}
        在{y}[的]{how}<ma>
        它在{y}[的]{how}<right>
        它在不在{y}[的]{how}
        它是否在{y}[的]{how}
        ! (你看|你说|你觉得)它在{y}的{how}<ma>
        ! 它(画在|放在){y}[的]{how}<ma>
        ! 说它在{y}的{how}，(对吗|对不对)
    """,
    "compare": """
        ++ {x}和{y}，哪个(更|比较|){how}
        {x}[和|与|跟]{y}哪个(更|比较){how}
        哪个(更|比较|){how}，{x}还是{y}
        {x}{how}还是{y}{how}
        是{x}更{how}还是{y}更{how}
        {x}还是{y}更{how}
        <inpic>{x}和{y}哪个(更|){how}
        <tell>{x}和{y}哪个更{how}
        更{how}的是{x}还是{y}
        {x}[和|与]{y}(谁|哪一个)更{how}
        ! (你看|你说|你觉得){x}和{y}哪个更{how}
        ! (比一比|比较|比较一下){x}和{y}，哪个更{how}
        ! {x}与{y}相比，哪个{how}
        ! 在{x}和{y}里，{how}的是哪个
    """,
    "compare_yes": """
        +++ {x}比{y}[更]{how}<ma>
        {x}是不是比{y}[更]{how}
        {x}比{y}[更]{how}<right>
        <inpic>{x}比{y}{how}<ma>
        {x}是否比{y}{how}
        {x}是不是{how}过{y}
        我觉得{x}比{y}{how}<right>
        ! (你看|你觉得){x}比{y}{how}<ma>
        ! 和{y}相比，{x}更{how}<ma>
    """,
    "compare_follow": """
        ++ [那]<it>比{y}[更]{how}<ma>
        [那]它是不是比{y}[更]{how}
        它比{y}[更]{how}<right>
        比{y}[更]{how}<ma>
        ! (你看|你觉得)它比{y}{how}<ma>
        ! 和{y}相比，它更{how}<ma>
    """,
    "size_follow": """
        ++ [那]它比{y}大还是小
        它和{y}比[，]是大还是小
        比{y}大还是小
        ! 和{y}相比，它(更大还是更小|大一点还是小一点)
        ! 它的大小(跟|和){y}比怎么样
    """,
}  # fmt: skip
