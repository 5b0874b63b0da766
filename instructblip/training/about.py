"""What the embedded model's properties file tells its users."""

from __future__ import annotations

ABOUT: dict[str, object] = {
    "name": "InstructBLIP embedded (demonstration)",
    "licence": "Apache-2.0; trained on icons under Apache-2.0, MIT and CC-BY-4.0",
    "languages": ["en", "zh"],
    "world": {
        "en": "Drawn scenes of 1 to 5 objects: 76 kinds of icons, 9 shapes, letters and digits in 11 colours.",
        "zh": "由 1 到 5 个物体组成的画面：76 种图标、9 种形状、字母和数字，11 种颜色。",
    },
    "can_ask": {
        "en": [
            "What is in the picture?", "How many things are there?", "What colour is the circle?",
            "Where is the cat?", "What is on the left?", "Is there a dog?",
            "Is the cat above the star?", "Which is bigger, the cat or the star?",
            "Describe the picture in detail.", "What shape is the red thing?", "Is there an animal?",
            "What is the biggest thing?", "Which things are food?", "Are there more than two things?",
            "What colour is the background?", "What else is there?",
        ],
        "zh": [
            "图里有什么？", "有几个东西？", "圆形是什么颜色？", "猫在哪里？", "左边是什么？",
            "有狗吗？", "猫在星形的上边吗？", "猫和星形哪个更大？", "详细描述这张图。",
            "红色的东西是什么形状？", "有动物吗？", "最大的东西是什么？", "哪些东西是食物？", "东西超过两个吗？",
            "背景是什么颜色？", "还有什么？",
        ],
    },
}  # fmt: skip
