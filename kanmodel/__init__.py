"""The model core of Kanscope: LSTM+KAN forecasters and their explanations, without HTTP."""
