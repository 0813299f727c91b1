"""The claim of each method's paper, in one sentence of our own, for docs/methods.md.

Their models, data and measures are others than those here: image classifiers mostly, until 2020. It is what
a reader of the paper would expect, not a number to be met.
"""

PAPER_SAYS = {
    "adapter-per-task": "does about as well as simple replay, and both stay below multi-task learning "
    "(Madotto et al. 2021)",
    "agem": "as good as GEM or better, at nearly the cost of EWC (Chaudhry et al. 2019)",
    "asft": "learns more than plain tuning and DFT do in mathematics, medicine and code, and drifts less "
    "than DFT (Zhu et al. 2025)",
    "calm": "for composing two models: better than either one, and than tuning the anchor where that forgets "
    "(Bansal et al. 2024)",
    "corda": "in the mode that preserves knowledge: learns more than LoRA, and forgets less of what the base "
    "knows (Yang et al. 2024)",
    "dare": "90 % of what fine-tuning changed, and more in large models, can be dropped at little loss "
    "(Yu et al. 2024)",
    "der++": "past logits beside past labels beat more elaborate ways at little cost (Buzzega et al. 2020)",
    "dft": "generalizes better than plain tuning in mathematics, code and with images; less so, its authors "
    "say, where one given answer is right (Yongliang Wu et al. 2025)",
    "eaft": "learns about as much as plain tuning and loses a quarter to two thirds of the general ability "
    "that this costs (Diao et al. 2026)",
    "ema": "none for a plain moving average of weights; the slow and the fast learner are those of I-LoRA, "
    "which besides replays past examples' hidden states (Ren et al. 2024)",
    "ewc": "old tasks are kept by learning slowly where they need the weights (Kirkpatrick et al. 2017)",
    "flow": "with a model of 2B 0.8 points less of the new task than plain tuning, and 5.4 more of what was "
    "there before (Sanyal et al. 2025)",
    "freeze": "with the bottom layers frozen much of what seemed forgotten stays: the first task's accuracy "
    "44 % instead of 11 % (Zheng et al. 2025)",
    "gem": "forgets less, and earlier tasks may even gain (Lopez-Paz & Ranzato 2017)",
    "gpm": "on a par with the best of its day or better, without past data (Saha et al. 2021)",
    "inflora": "better than the parameter-efficient methods of its day on several data sets of images "
    "(Liang & Li 2024)",
    "kl": "an anchor to the base model keeps reweighted fine-tuning stable (Zhu et al. 2025)",
    "l2-sp": "a better default than plain weight decay when a pre-trained model is tuned (Li et al. 2018)",
    "lamol": "five tasks one after another, 2 to 3 points below multi-task learning, without past data "
    "(Sun et al. 2020)",
    "lora-null": "preserves the base's world knowledge and tunes well; it preserves more where A is frozen "
    "(Tang et al. 2026)",
    "lwf": "better than feature extraction and fine-tuning, near multi-task learning (Li & Hoiem 2016)",
    "magmax": "sequential tuning with the largest changes kept beats other continual methods "
    "(Marczak et al. 2024)",
    "moe-lora": "experts behind a gate keep world knowledge through large-scale tuning (Dou et al. 2024)",
    "o-lora": "better than the methods before it on T5 and LLaMA, without past data (Wang et al. 2023)",
    "ogd": "forgets less than SGD, without past data (Farajtabar et al. 2020)",
    "on-policy-replay": "1 % of past prompts bring BWT from −13.9 to −2.3 on TRACE, with a model of 7B "
    "(Chen et al. 2026)",
    "osf": "higher accuracy than O-LoRA's and almost no forgetting (Nayak et al. 2025)",
    "progressive-prompts": "over 20 points above the best before it, with T5 (Razdaibiedina et al. 2023)",
    "replay": "a very small memory, trained on beside the new task, beats methods made for the purpose "
    "(Chaudhry et al. 2019); replays further and further apart beat replays at equal intervals, most of all "
    "in the model's own time (Feng et al. 2026)",
    "self-distillation": "learns new tasks better than supervised tuning and forgets much less, where the "
    "model can use a demonstration: from 7B on (Shenfeld et al. 2026)",
    "self-guide-replay": "of such examples alone: tuning on them gains about 15 points in classification and "
    "18 in generation over prompting (Zhao et al. 2024); no paper replays them",
    "si": "much less forgetting at small cost (Zenke et al. 2017)",
    "slao": "better than earlier methods without past data, with one adapter whatever the number of tasks "
    "(Qiao & Mahdavi 2026)",
    "ssr": "as good as replay of past examples or better, with none of them (Huang et al. 2024)",
    "stm": "of other tasks nothing is lost where plain tuning costs 38 %, with a model of 2B tuned on MBPP "
    "(Chao-Chung Wu et al. 2025)",
    "task-arithmetic": "adding task vectors makes one model good at several tasks (Ilharco et al. 2023)",
    "ties": "loses less in merging than averaging and task arithmetic do (Yadav et al. 2023)",
    "weight-averaging": "gains robustness and keeps the accuracy of the new task (Wortsman et al. 2022)",
}
