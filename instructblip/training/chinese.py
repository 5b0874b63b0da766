"""Chinese words of the embedded model's world."""

from __future__ import annotations

NAMES: dict[str, str] = {
    "cat": "猫", "dog": "狗", "horse": "马", "cow": "牛", "pig": "猪", "mouse": "老鼠", "rabbit": "兔子",
    "monkey": "猴子", "lion": "狮子", "elephant": "大象", "penguin": "企鹅", "frog": "青蛙", "snake": "蛇",
    "turtle": "乌龟", "fish": "鱼", "whale": "鲸鱼", "octopus": "章鱼", "butterfly": "蝴蝶", "bee": "蜜蜂",
    "ladybug": "瓢虫", "owl": "猫头鹰", "duck": "鸭子", "crab": "螃蟹", "panda": "熊猫",
    "apple": "苹果", "banana": "香蕉", "strawberry": "草莓", "pineapple": "菠萝", "watermelon": "西瓜",
    "pear": "梨", "lemon": "柠檬", "cherry": "樱桃",
    "carrot": "胡萝卜", "corn cob": "玉米", "chili pepper": "辣椒", "eggplant": "茄子", "mushroom": "蘑菇",
    "pizza": "比萨", "hamburger": "汉堡", "doughnut": "甜甜圈", "cookie": "饼干", "ice cream": "冰淇淋",
    "birthday cake": "蛋糕",
    "car": "汽车", "bus": "公共汽车", "bicycle": "自行车", "airplane": "飞机", "rocket": "火箭",
    "sailboat": "帆船", "tractor": "拖拉机", "helicopter": "直升机", "fire engine": "消防车",
    "tree": "树", "palm tree": "棕榈树", "cactus": "仙人掌", "tulip": "郁金香", "sunflower": "向日葵", "rose": "玫瑰",
    "umbrella": "伞", "bell": "铃", "key": "钥匙", "clock": "钟", "book": "书", "light bulb": "灯泡",
    "hammer": "锤子", "scissors": "剪刀", "camera": "相机",
    "guitar": "吉他", "violin": "小提琴", "trumpet": "喇叭", "drum": "鼓",
    "shoe": "鞋", "hat": "帽子", "dress": "裙子", "T-shirt": "衬衫", "glasses": "眼镜",
    "circle": "圆形", "square": "方形", "triangle": "三角形", "star": "星形", "heart": "心形",
    "diamond": "菱形", "cross": "十字", "ring": "圆环", "arrow": "箭头", "rectangle": "长方形",
    "oval": "椭圆形", "pentagon": "五边形", "hexagon": "六边形",
}  # fmt: skip
COLOURS = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色", "blue": "蓝色", "purple": "紫色",
    "pink": "粉色", "brown": "棕色", "black": "黑色", "white": "白色", "gray": "灰色",
    "teal": "青色", "beige": "米色", "gold": "金色",
}  # fmt: skip
KINDS = {
    "animal": "动物", "fruit": "水果", "vegetable": "蔬菜", "food": "食物", "vehicle": "交通工具",
    "plant": "植物", "household thing": "家用的东西", "instrument": "乐器", "clothing": "衣服",
    "shape": "形状", "letter": "字母", "digit": "数字",
}  # fmt: skip
NUMBERS = ("没有", "一个", "两个", "三个", "四个", "五个")
PLACES = (
    ("在左上角", "在上边", "在右上角"),
    ("在左边", "在中间", "在右边"),
    ("在左下角", "在下边", "在右下角"),
)
SIDES = {"left": "左边", "right": "右边", "top": "上边", "bottom": "下边"}
RELATIONS = {
    "to the left of": "左边", "to the right of": "右边", "above": "上边", "below": "下边",
}  # fmt: skip
OUTSIDE = "我不认识这张图片。"
UNKNOWN = "我不认识的东西"

# What people also call them; the answers keep the names above.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "cat": ("猫咪", "小猫"), "dog": ("小狗", "狗狗"), "rabbit": ("小兔", "兔"), "mouse": ("耗子",),
    "turtle": ("龟",), "monkey": ("猴",), "elephant": ("象",), "duck": ("鸭",), "bee": ("小蜜蜂",),
    "horse": ("小马",), "cow": ("奶牛",), "pig": ("小猪", "猪猪"), "frog": ("蛙",), "fish": ("小鱼", "鱼儿"),
    "corn cob": ("玉米棒",), "pineapple": ("凤梨",), "strawberry": ("士多啤梨",), "pizza": ("披萨", "披萨饼"),
    "hamburger": ("汉堡包",), "cookie": ("曲奇",), "ice cream": ("雪糕",), "birthday cake": ("生日蛋糕",),
    "car": ("小汽车", "轿车", "车子"), "bus": ("公交车", "巴士"), "bicycle": ("单车", "脚踏车"), "airplane": ("客机",),
    "fire engine": ("救火车",), "umbrella": ("雨伞",), "bell": ("铃铛",), "clock": ("时钟", "闹钟"),
    "light bulb": ("电灯泡",), "camera": ("照相机",), "hammer": ("榔头",), "shoe": ("鞋子",), "hat": ("帽",),
    "dress": ("连衣裙",), "T-shirt": ("T恤", "上衣"), "rose": ("玫瑰花",), "tree": ("大树", "树木"),
    "trumpet": ("小号",), "eggplant": ("矮瓜",), "chili pepper": ("尖椒",), "book": ("书本",),
    "circle": ("圆", "圆圈"), "square": ("正方形", "方块"), "triangle": ("三角",), "star": ("星星", "五角星"),
    "heart": ("爱心", "心"), "cross": ("十字形",), "ring": ("环",), "rectangle": ("矩形", "长方块"),
    "oval": ("椭圆",), "pentagon": ("正五边形",), "hexagon": ("正六边形",),
}  # fmt: skip
COLOUR_SYNONYMS: dict[str, tuple[str, ...]] = {
    "teal": ("蓝绿色",), "gray": ("灰",), "pink": ("粉红色",), "brown": ("褐色", "咖啡色"), "purple": ("紫",),
    "orange": ("橘色", "橙"), "gold": ("金黄色",), "beige": ("米白色",), "red": ("红",), "yellow": ("黄",),
    "green": ("绿",), "blue": ("蓝",), "black": ("黑",), "white": ("白",),
}  # fmt: skip
MEASURES: dict[str, str] = {
    **dict.fromkeys(("horse",), "匹"), **dict.fromkeys(("cow", "pig", "elephant", "lion"), "头"),
    **dict.fromkeys(("snake", "fish", "dress"), "条"), **dict.fromkeys(("car", "bus", "bicycle", "tractor", "fire engine"), "辆"),
    **dict.fromkeys(("airplane", "helicopter"), "架"), "sailboat": "艘", "rocket": "枚",
    **dict.fromkeys(("tree", "palm tree", "cactus"), "棵"), **dict.fromkeys(("tulip", "sunflower", "rose"), "朵"),
    **dict.fromkeys(("umbrella", "key", "hammer", "scissors", "guitar", "violin"), "把"), "book": "本",
    "T-shirt": "件", "hat": "顶", "glasses": "副", "camera": "台", "shoe": "只",
    **dict.fromkeys(("carrot", "banana", "corn cob"), "根"),
}  # fmt: skip
# Kinds as a question about several things names them.
GROUPS: dict[str, tuple[str, ...]] = {
    "thing": ("东西", "物体"), "animal": ("动物", "小动物"), "fruit": ("水果",), "vegetable": ("蔬菜", "菜"),
    "food": ("食物", "吃的东西", "能吃的东西", "食品"), "vehicle": ("交通工具",), "plant": ("植物",),
    "instrument": ("乐器",), "clothing": ("衣服", "衣物", "穿的东西"), "shape": ("图形", "形状"),
    "letter": ("字母",), "digit": ("数字",),
}  # fmt: skip
# Other words of a question, by what they mean; answers have the key's own.
WORDS: dict[str, tuple[str, ...]] = {
    "biggest": ("最大",), "smallest": ("最小",), "most left": ("最左边", "最左", "最靠左"), "most right": ("最右边", "最右", "最靠右"),
    "most top": ("最上面", "最上边", "最高"), "most bottom": ("最下面", "最下边", "最低"), "bigger": ("大",), "smaller": ("小",),
    "left": ("左边", "左边", "左侧", "左面"), "right": ("右边", "右边", "右侧", "右面"),
    "top": ("上边", "上边", "上面", "上方", "顶部"), "bottom": ("下边", "下边", "下面", "下方", "底部"),
    "to the left of": ("左边", "左边", "左侧", "左面"), "to the right of": ("右边", "右边", "右侧", "右面"),
    "above": ("上边", "上边", "上面", "上方"), "below": ("下边", "下边", "下面", "下方"),
    "左上角": ("左上角", "左上角", "左上", "左上方"), "右上角": ("右上角", "右上角", "右上", "右上方"),
    "左下角": ("左下角", "左下角", "左下", "左下方"), "右下角": ("右下角", "右下角", "右下", "右下方"),
    "中间": ("中间", "中间", "正中间", "中央", "正中"),
}  # fmt: skip
FIGURES = ("零", "一", "两", "三", "四", "五", "六")
MISSING = {"shape": "图形", "letter": "字母", "digit": "数字"}
ANIMALS = frozenset(list(NAMES)[: list(NAMES).index("apple")])
# A synonym that could be understood as another name of the world, where that is in the scene.
CLASHES: dict[str, tuple[str, ...]] = {
    "圆圈": ("ring",),
    "圆": ("ring",),
    "环": ("circle",),
    "长方块": ("square",),
    "方块": ("rectangle",),
}
SAID: dict[str, str] = {
    "hello": "你好！可以问我图里的东西。", "who": "我是一个小模型，看图回答问题。",
    "can": "我能说出图里的东西、颜色、位置和数量。", "thanks": "不客气！", "bye": "再见！",
    "cannot_see": "从图里看不出来。", "cannot_do": "我只能回答关于图的问题。",
    "gibberish": "我只懂中文和英文。", "word": "我不认识这个词。",
    "hue_unknown": "我只知道图形、字母和数字的颜色。", "else": "没有别的。",
}  # fmt: skip
# Words that the world does not have; the second list is for the test.
_STRANGE = (
    "斑马 长颈鹿 老虎 狐狸 狼 熊 骆驼 袋鼠 鹰 鹦鹉 鸽子 孔雀 恐龙 龙 蜘蛛 蚂蚁 海豚 鲨鱼 桌子 椅子 沙发 床 门 窗户 房子 "
    "桥 山 河 海 月亮 太阳 云 雪人 冰箱 电视 电脑 手机 电话 键盘 杯子 盘子 碗 勺子 叉子 刀 瓶子 牛奶 面包 米饭 面条 鸡蛋 "
    "葡萄 桃子 橙子 西红柿 土豆 洋葱 黄瓜 火车 地铁 摩托车 卡车 坦克 钢琴 笛子 篮球 足球 气球 礼物 钱 铅笔 尺子 男孩 女孩 "
    "医生 老师 警察 国王 手 脚 眼睛 耳朵 袜子 手套 围巾 裤子 梯形 球 立方体 螺旋"
)
_STRANGE_TEST = (
    "猩猩 河马 犀牛 松鼠 刺猬 蝙蝠 蜗牛 柜子 台灯 镜子 楼梯 城堡 火山 彩虹 闪电 打印机 茶壶 筷子 豆腐 饺子 荔枝 南瓜 出租车 "
    "潜水艇 口琴 风筝 橡皮 士兵 鼻子 领带 圆锥"
)
STRANGE, STRANGE_TEST = _STRANGE.split(), _STRANGE_TEST.split()
PHRASINGS: dict[str, tuple[str, ...]] = {}  # goes with phrasings.py
