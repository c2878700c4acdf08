"""Forecasters as in tutorials, one class per case of `golden/import/glue`."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from glue_layers import KAN, ChebyKANLayer, KANLinear, NaiveFourierKANLayer, WavKANLinear


class LSTMReluKAN(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.relu = nn.ReLU()
        self.fc = nn.Sequential(KANLinear(hidden, kan_hidden), KANLinear(kan_hidden, 1))

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(self.relu(out[:, -1]))


class GRUKAN(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.gru = nn.GRU(n_features, hidden, batch_first=True)
        self.kan = KAN([hidden, kan_hidden, 1])

    def forward(self, x):
        out, _ = self.gru(x)
        return self.kan(out[:, -1, :])


class LSTMLayerNormKAN(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        self.kan = KAN([hidden, kan_hidden, 1], grid_range=[-2, 2])

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.kan(self.norm(out[:, -1, :]))


class LSTMLinearKAN(nn.Module):
    def __init__(self, n_features, hidden, bottleneck, kan_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, bottleneck)
        self.kan = KAN([bottleneck, kan_hidden, 1])

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        z = torch.tanh(self.fc(h[-1]))
        return self.kan(z)


class LSTMKANLinear(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.kan = KANLinear(hidden, kan_hidden, base_activation=nn.GELU)
        self.out = nn.Linear(kan_hidden, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.out(self.kan(out[:, -1, :]))


class BiLSTMKANLinear(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.bilstm = nn.LSTM(n_features, hidden, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.kan = KANLinear(2 * hidden, kan_hidden)
        self.fc = nn.Linear(kan_hidden, 1)

    def forward(self, x):
        out, _ = self.bilstm(x)
        return self.fc(self.kan(out.mean(dim=1)))


class FlatKAN(nn.Module):
    def __init__(self, lookback, n_features, kan_hidden):
        super().__init__()
        self.kan = KAN([lookback * n_features, kan_hidden, 1], grid_range=[-3, 3])

    def forward(self, x):
        return self.kan(x.flatten(1))


class LSTMMLP(nn.Module):
    """Without batch_first, as in many tutorials."""

    def __init__(self, n_features, hidden, mlp_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden)
        self.fc1 = nn.Linear(hidden, mlp_hidden)
        self.dropout = nn.Dropout(0.1)
        self.fc2 = nn.Linear(mlp_hidden, 1)

    def forward(self, x):
        out, _ = self.lstm(x.permute(1, 0, 2))
        return self.fc2(self.dropout(F.relu(self.fc1(out[-1]))))


class RainClassifier(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.kan = KAN([hidden, kan_hidden, 1])

    def forward(self, x):
        out, _ = self.lstm(x)
        return torch.sigmoid(self.kan(self.dropout(out[:, -1, :])))


class LSTMBatchNormKAN(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.bn = nn.BatchNorm1d(hidden)
        self.kan = KAN([hidden, kan_hidden, 1], grid_range=[-2, 2])

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.kan(self.bn(out[:, -1, :]))


class LSTMCheby(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden, degree):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.chebykan1 = ChebyKANLayer(hidden, kan_hidden, degree)
        self.ln1 = nn.LayerNorm(kan_hidden)
        self.chebykan2 = ChebyKANLayer(kan_hidden, 1, degree)

    def forward(self, x):
        out, _ = self.lstm(x)
        x = self.chebykan1(out[:, -1, :])
        x = self.ln1(x)
        return self.chebykan2(x)


class LSTMFourier(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden, gridsize):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.fkan1 = NaiveFourierKANLayer(hidden, kan_hidden, gridsize)
        self.fkan2 = NaiveFourierKANLayer(kan_hidden, 1, gridsize)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fkan2(self.fkan1(out[:, -1, :]))


class LinearLSTMKAN(nn.Module):
    def __init__(self, n_features, d_model, hidden, kan_hidden):
        super().__init__()
        self.embedding = nn.Linear(n_features, d_model)
        self.lstm = nn.LSTM(d_model, hidden, batch_first=True)
        self.kan = KAN([hidden, kan_hidden, 1])

    def forward(self, x):
        out, _ = self.lstm(F.relu(self.embedding(x)))
        return self.kan(out[:, -1, :])


class GRUSoftmax(nn.Module):
    def __init__(self, n_features, hidden, bottleneck, kan_hidden, n_classes):
        super().__init__()
        self.gru = nn.GRU(n_features, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, bottleneck)
        self.kan = KAN([bottleneck, kan_hidden, n_classes], grid_range=[-2, 2])

    def forward(self, x):
        out, _ = self.gru(x)
        return F.softmax(self.kan(self.fc(out[:, -1, :])), dim=1)


class MultiStep(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden, horizon):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.kan = KAN([hidden, kan_hidden, horizon], base_activation=nn.Identity)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.kan(out[:, -1, :])


class LSTMWavelet(nn.Module):
    def __init__(self, n_features, hidden, kan_hidden):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.kan = nn.Sequential(WavKANLinear(hidden, kan_hidden), WavKANLinear(kan_hidden, 1))

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.kan(out[:, -1, :])
