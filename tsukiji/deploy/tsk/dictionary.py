"""Text that the headers of packed files repeat.

Deflate refers to it from the first byte on, which takes 600 bytes off every
file. Part of the format: layers of the zoo, recipes, and classes of well-known
data sets, the most frequent ones last.
"""

LAYERS = b"""\
"Branch","merge":"add","paths":[[{"merge":"concat"{"layer":"GlobalMean"},\
{"fn":"leaky_relu","elu","gelu","silu","tanh","sigmoid"\
{"layer":"Flatten"},{"bias":true,"features":256,"layer":"Dense","name":"dense1"\
},{"layer":"Dropout","rate":0.3},{"bias":true,"features":10,"layer":"Dense",\
"name":"dense2"}],"name":"tsukijinet2021"},"v":{"batch_stats":{"norm1":{"mean":\
"f4 32","var":"f4 32"},"norm2":{"mean":"f4 64","var":"f4 64"}},"params":{\
"conv1":{"bias":"f4 32","kernel":{"":"Quantized","bits":8,"codes":"i1 5 5 1 32"\
,"inputs":{"":"Inputs","bits":8,"high":"f4","low":"f4"},"scale":"f4 32"}},\
"conv2":{"kernel":"f4 3 3 32 64"}},"dense1":{"kernel":{"":"Quantized","bits":4,\
"codes":"i1 1024 256","inputs":null,"scale":"f4 256"}},"norm1":{"bias":"f4 16",\
"scale":"f4 16"},"norm2":{"bias":"f4 64","scale":"f4 64"}}}}],"m":{},"s":{\
"input_shape":[28,28,1],"layers":[{"layer":"Standardise","mean":[0.0],"std":[\
1.0]},{"bias":false,"features":16,"groups":1,"kernel":[3,3],"layer":"Conv",\
"name":"conv1","padding":"SAME","strides":[1,1]},{"epsilon":1e-05,"layer":\
"Norm","momentum":0.9,"name":"norm1"},{"fn":"relu","layer":"Act"},{"kind":\
"mean","layer":"Pool","strides":[2,2],"window":[2,2]},{"bias":true,"features":\
32,"groups":1,"kernel":[5,5],"layer":"Conv","name":"conv2","padding":"VALID",\
"strides":[1,1]},{"epsilon":1e-05,"layer":"Norm","momentum":0.9,"name":"norm2"}\
,{"fn":"relu","layer":"Act"},{"kind":"max","layer":"Pool","strides":[2,2],\
"window":[2,2]},{"a":[17,65,33,"""
# Of networks as graphs, format 3.
GRAPH = b"""\
"batch_stats":{},"constants":{"#0":"f4 1 64"},"outputs":[60]},"m":{},"v":{["log\
istic",["erf",["exp",["tanh",["rsqrt",["concat",["pad",["take",["broadcast",["t\
ranspose",9,{"order":[0,2,1,3]}],["expand",["cast",5,{"dtype":"float32"}],["sli\
ce",1,{"begin":[0,0],"end":[null,null],"strides":[1,1]}],["scan",8,{"body":{"no\
des":[["carry":1,"consts":2,"length":16,"reverse":false}],["item",9,{"index":0}\
],["reduce_max",3,{"axes":[2]}],["reduce_sum",9,{"axes":[1,2]}],["div",10,49.0]\
,["select",11,10,["ge",9,0.0],["gt",9,-1.0],["lt",9,1.0],["neg",["min",["ipow",\
8,{"power":2}],["reduce_window_sum",8,{"sizes":[1,2,2,1],"strides":[1,2,2,1]}],\
["dot",8,"net/attention/query/kernel",{"dims":[[[2],[0]],[[],[]]]}],["conv",1,"\
block1_1_conv1/kernel",{"dilation":[[1,1],[1,1]],"padding":[[1,1],[1,1]],"strid\
es":[2,2]}],"norm1/bias":"f4 16","norm1/scale":"f4 16","dense/kernel":{"":"Quan\
tized","bits":4,"codes":"i1 1024 256","inputs":null,"scale":"f4 256"},"conv1/ke\
rnel":{"":"Quantized","bits":8,"codes":"i1 5 5 1 32","inputs":{"":"Inputs","bit\
s":8,"high":"f4","low":"f4"},"scale":"f4 32"},"conv2/bias":"f4 64","conv2/kerne\
l":"f4 3 3 32 64","dense1/bias":"f4 256","dense1/kernel":"f4 1024 256","dense2/\
bias":"f4 10","dense2/kernel":"f4 256 10"}}],"m":{},"g":{"inputs":["float32 28 \
28 1"],"nodes":[["sub","@0",0.0],["div",0,1.0],["conv",1,"conv1/kernel"],["add"\
,2,"conv1/bias"],["max",3,0.0],["reduce_window_max",4,{"sizes":[1,2,2,1],"strid\
es":[1,2,2,1]}],["conv",5,"conv2/kernel"],["add",6,"conv2/bias"],["max",7,0.0],\
["reduce_window_max",8,{"sizes":[1,2,2,1],"strides":[1,2,2,1]}],["reshape",9,{"\
groups":[[[0],[-1]],[[1,2,3],[-1]]]}],["dot",10,"dense1/kernel"],["add",11,"den\
se1/bias"],["max",12,0.0],["dot",13,"dense2/kernel"],["add",14,"dense2/bias"]],\
"outputs":[15]},{"a":[17,65,33,"""
# In front of it, format 4.
WORDS = b"""\
{"":"Binarized","scale":"f4 12","signs":"b1 3 3 1 12"}{"":"Shared","gain":"f4 1\
2","index":"u1 3 3 1 12","values":"f4 16"}{"":"Half","gain":null,"halves":"f2 3\
 3 1 12"}{"":"Structured","family":"circulant","gain":"f4 24","held":"b1 27 4",\
"shape":[3,3,12,24],"values":"f4 27 6 1 4"}"bits":2,"codes":"i1 3 3 12 24","inp\
uts":null,"scale":"f4 24"}["conv",5,"block1_1_conv2/kernel",["conv",9,"block2_1\
_conv1/kernel",{"padding":[[0,1],[0,1]],"strides":[2,2]}],["conv",9,"block2_1_s\
kip/kernel",{"strides":[2,2]}],["conv",2,"conv1_2/kernel",["conv",3,"stage2_1_c\
onv1/kernel",{"padding":[[1,1],[1,1]]}],["add",4,"stage2_1_conv1/bias"],["conv"\
,3,"stage2_1_skip/kernel"],["add",9,"stage2_1_skip/bias"],["add",8,10],["max",1\
1,0.0],["conv",3,"stage2_1_depth/kernel",{"padding":[[1,1],[1,1]]}],["add",4,"s\
tage2_1_depth/bias"],["max",5,0.0],["conv",6,"stage2_1_point/kernel"],["add",7,\
"stage2_1_point/bias"],["max",8,0.0],["conv",1,"stage1_1_u/kernel",["conv",2,"s\
tage1_1_v/kernel","recipe":"binary.weights(binary.bnn(ends=False)binary.react()\
lowrank.svd(8)lowrank.auto(macs=0.5)share.kmeans(16)quantize.half()quantize.ter\
nary()structured.circulant(4)prune.n_m(2, 4)prune.auto(0.9, schedule=cubic(0.0,\
 0.5))prune.filters(macs=0.5, multiple=4, score=\\"taylor\\", scope=\\"auto\\")\
 >> quantize.auto(bits=4.0)prune.weights(0.95, scope=\\"global\\", schedule=cub\
ic(0.0, 0.6)) >> quantize.int8()quantize.uniform(4, 8) >> quantize.lsq(4, 8) >>\
 regularize.entropy(0.03, schedule=linear(0.0, 0.5)) >> distill.kd(distill.logi\
ts(4.0)"},"v":{"params":{"conv/bias":"f4 8","conv/kernel":{"":"Quantized","bits\
":4,"codes":"i1 3 3 1 8","inputs":{"":"Inputs","bits":8,"high":"f4","low":"f4"}\
,"scale":"f4 8"},"dense/bias":"f4 10","dense/kernel":{"":"Quantized","bits":4,"\
codes":"i1 32 10","inputs":{"":"Inputs","bits":8,"high":"f4","low":"f4"},"scale\
":"f4 10"},"stage1_1/bias":"f4 12","stage1_1/kernel":{"":"Quantized","bits":3,"\
codes":"i1 3 3 8 12","inputs":{"":"Inputs","bits":4,"high":"f4","low":"f4"},"sc\
ale":"f4 12"},"stage2_1/bias":"f4 16","stage2_1/kernel":{"":"Quantized","bits":\
4,"codes":"i1 3 3 8 16","inputs":{"":"Inputs","bits":8,"high":"f4","low":"f4"},\
"scale":"f4 16"},"stage3_1/bias":"f4 32","stage3_1/kernel":{"":"Quantized","bit\
s":4,"codes":"i1 3 3 16 32","inputs":{"":"Inputs","bits":8,"high":"f4","low":"f\
4"},"scale":"f4 32"}}}}"m":{"classes":["0","1","2","3","4","5","6","7","8","9"]\
,"dataset":"digits","name":"["airplane","automobile","bird","cat","deer","dog",\
"frog","horse","ship","truck"],"dataset":"cifar10","name":"["T-shirt/top","Trou\
ser","Pullover","Dress","Coat","Sandal","Shirt","Sneaker","Bag","Ankle boot"],"\
dataset":"fashion_mnist","name":"tsukijinet2021-0-dense","network":"tsukijinet2\
021","recipe":"student-0-","network":"student","recipe":""g":{"inputs":["float3\
2 28 28 1"],"nodes":[["conv","@0","conv/kernel",{"padding":[[1,1],[1,1]]}],["ad\
d",0,"conv/bias"],["max",1,0.0],["reduce_window_max",2,{"sizes":[1,2,2,1],"stri\
des":[1,2,2,1]}],["conv",3,"stage2_1/kernel",{"padding":[[1,1],[1,1]]}],["add",\
4,"stage2_1/bias"],["max",5,0.0],["reduce_window_max",6,{"sizes":[1,2,2,1],"str\
ides":[1,2,2,1]}],["conv",7,"stage3_1/kernel",{"padding":[[1,1],[1,1]]}],["add"\
,8,"stage3_1/bias"],["max",9,0.0],["reduce_sum",10,{"axes":[1,2]}],["div",11,49\
.0],["dot",12,"dense/kernel"],["add",13,"dense/bias"]],"outputs":[14]},"""
