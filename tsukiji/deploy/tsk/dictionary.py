"""Text that the headers of packed files repeat.

Deflate refers to it from the first byte on, which takes 350 bytes off every
file. Part of the format.
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
