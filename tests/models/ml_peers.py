#!/usr/bin/env python3
"""Models of scikit-learn, XGBoost and LightGBM, as their converters write them, run by quern and by ONNX Runtime.

  ml_peers.py QUERN [--keep DIR] [--only NAME]

Needs python with onnx, onnxruntime, skl2onnx, onnxmltools, scikit-learn, xgboost, lightgbm. Prints one line a model; exits 1 where the
answers differ by more than the tolerance, or where quern refuses a model that ONNX Runtime runs.
"""
import argparse, os, subprocess, sys, tempfile, warnings
import numpy as np

warnings.filterwarnings("ignore")


def models():
    """Yields (name, function that makes the ONNX model, {input: array})."""
    import onnx.helper
    make_attribute = onnx.helper.make_attribute

    def plain(key, value, *args, **more):  # skl2onnx 1.20 leaves numpy's numbers and arrays
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list):
            value = [v.item() if isinstance(v, np.generic) else v for v in value]
            value = [int(v) if isinstance(v, bool) else v for v in value]
        return make_attribute(key, value, *args, **more)
    onnx.helper.make_attribute = plain
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, DoubleTensorType, Int64TensorType, StringTensorType
    from sklearn import datasets, ensemble, linear_model, naive_bayes, neighbors, neural_network, preprocessing, svm, tree, impute, pipeline, multiclass, cluster, decomposition, feature_extraction, compose, gaussian_process, discriminant_analysis
    rng = np.random.default_rng(1)
    iris, digits, diabetes = datasets.load_iris(), datasets.load_digits(), datasets.load_diabetes()
    Xi, yi = iris.data.astype(np.float32), iris.target
    Xb, yb = Xi[:100], yi[:100]
    Xb = Xb + rng.normal(size=Xb.shape).astype(np.float32)  # so that classes overlap
    Xd, yd = diabetes.data.astype(np.float32), diabetes.target
    words = np.array(["cat", "dog", "bird"])

    def skl(name, m, X, y=None, options=None, kind=FloatTensorType, opset=None, T=np.float32):
        def convert():
            m.fit(X, y) if y is not None else m.fit(X)
            return to_onnx(m, initial_types=[("X", kind([None, X.shape[1]]))], options={id(m): options} if options else None, target_opset=opset)
        return name, convert, {"X": X[:80].astype(T)}

    nozip = {"zipmap": False}
    for opset in ({"": 15, "ai.onnx.ml": 1}, {"": 17, "ai.onnx.ml": 3}, {"": 21, "ai.onnx.ml": 5}):
        v = opset["ai.onnx.ml"]
        yield skl(f"random_forest_digits_ml{v}", ensemble.RandomForestClassifier(20, max_depth=6, random_state=0), digits.data.astype(np.float32), digits.target, nozip, opset=opset)
        yield skl(f"random_forest_regressor_ml{v}", ensemble.RandomForestRegressor(20, random_state=0), Xd, yd, opset=opset)
    yield skl("random_forest_binary", ensemble.RandomForestClassifier(30, random_state=0), Xb, yb, nozip)
    yield skl("random_forest_words", ensemble.RandomForestClassifier(10, random_state=0), Xi, words[yi], nozip)
    yield skl("random_forest_words_binary", ensemble.RandomForestClassifier(10, random_state=0), Xb, words[yb], nozip)
    yield skl("random_forest_double", ensemble.RandomForestRegressor(10, random_state=0), Xd.astype(np.float64), yd, kind=DoubleTensorType, T=np.float64)
    yield skl("random_forest_ints", ensemble.RandomForestClassifier(10, random_state=0), (Xi * 10).astype(np.int64), yi, nozip, kind=Int64TensorType, T=np.int64)
    yield skl("forest_multi_target", ensemble.RandomForestRegressor(10, random_state=0), Xd, np.stack([yd, -yd, yd ** 2], 1))
    yield skl("extra_trees", ensemble.ExtraTreesClassifier(30, random_state=0), Xi, yi, nozip)
    yield skl("decision_tree", tree.DecisionTreeClassifier(random_state=0), Xi, yi, nozip)
    yield skl("decision_tree_binary", tree.DecisionTreeClassifier(random_state=0, max_depth=3), Xb, yb, nozip)
    yield skl("decision_tree_regressor", tree.DecisionTreeRegressor(random_state=0), Xd, yd)
    yield skl("gradient_boosting", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), Xi, yi, nozip)
    yield skl("gradient_boosting_binary", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), Xb, yb, nozip)
    yield skl("gradient_boosting_raw", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0), Xb, yb, {"zipmap": False, "raw_scores": True})
    yield skl("gradient_boosting_regressor", ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0), Xd, yd)
    yield skl("hist_gradient_boosting", ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0), Xi, yi, nozip)
    yield skl("hist_gradient_boosting_binary", ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0), Xb, yb, nozip)
    missing = Xd.copy()
    missing[rng.random(missing.shape) < 0.1] = np.nan
    yield skl("hist_gradient_boosting_missing", ensemble.HistGradientBoostingRegressor(max_iter=30, random_state=0), missing, yd)
    yield skl("isolation_forest", ensemble.IsolationForest(n_estimators=20, random_state=0), Xi, opset={"": 17, "ai.onnx.ml": 3})
    yield skl("ada_boost", ensemble.AdaBoostClassifier(n_estimators=10, random_state=0), Xi, yi, nozip)
    yield skl("bagging", ensemble.BaggingClassifier(n_estimators=5, random_state=0), Xi, yi, nozip)
    yield skl("voting", ensemble.VotingClassifier([("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=3))], voting="soft", flatten_transform=False), Xi, yi, nozip)
    yield skl("logistic_regression", linear_model.LogisticRegression(max_iter=500), Xi, yi, nozip)
    yield skl("logistic_regression_words", linear_model.LogisticRegression(max_iter=500), Xi, words[yi], nozip)
    yield skl("logistic_regression_binary", linear_model.LogisticRegression(), Xb, yb, nozip)
    yield skl("logistic_regression_raw", linear_model.LogisticRegression(), Xb, yb, {"zipmap": False, "raw_scores": True})
    yield skl("sgd_classifier", linear_model.SGDClassifier(loss="log_loss", random_state=0), Xi, yi, nozip)
    yield skl("perceptron", linear_model.Perceptron(random_state=0), Xi, yi, nozip)
    yield skl("one_vs_rest", multiclass.OneVsRestClassifier(linear_model.LogisticRegression()), Xi, yi, nozip)
    yield skl("ridge", linear_model.Ridge(), Xd, yd)
    yield skl("linear_regression_2", linear_model.LinearRegression(), Xd, np.stack([yd, -yd], 1))
    yield skl("linear_regression_double", linear_model.LinearRegression(), Xd.astype(np.float64), yd, kind=DoubleTensorType, T=np.float64)
    for kernel in ("linear", "poly", "rbf", "sigmoid"):
        yield skl(f"svc_{kernel}", svm.SVC(kernel=kernel), Xi, yi, nozip)
        yield skl(f"svc_{kernel}_binary", svm.SVC(kernel=kernel), Xb, yb, nozip)
        yield skl(f"svr_{kernel}", svm.SVR(kernel=kernel), Xd, yd)
    yield skl("svc_probability", svm.SVC(probability=True, random_state=0), Xi, yi, nozip)
    yield skl("svc_probability_binary", svm.SVC(probability=True, random_state=0), Xb, yb, nozip)
    yield skl("svc_words", svm.SVC(), Xi, words[yi], nozip)
    yield skl("nu_svc", svm.NuSVC(nu=0.3), Xi, yi, nozip)
    yield skl("nu_svr", svm.NuSVR(), Xd, yd)
    name, convert, feeds = skl("one_class_svm", svm.OneClassSVM(), Xi)
    yield name, convert, {"X": feeds["X"] + np.float32(0.07)}  # at its own support vectors the decision is 0, and its sign rounding
    yield skl("linear_svc", svm.LinearSVC(), Xi, yi)
    yield skl("linear_svc_binary", svm.LinearSVC(), Xb, yb)
    yield skl("gaussian_nb", naive_bayes.GaussianNB(), Xi, yi, nozip)
    yield skl("multinomial_nb", naive_bayes.MultinomialNB(), Xi, yi, nozip)
    yield skl("bernoulli_nb", naive_bayes.BernoulliNB(), (Xi > 2).astype(np.float32), yi, nozip)
    yield skl("k_neighbors", neighbors.KNeighborsClassifier(), Xi, yi, nozip)
    yield skl("k_neighbors_regressor", neighbors.KNeighborsRegressor(), Xd, yd)
    yield skl("mlp", neural_network.MLPClassifier((16,), max_iter=200, random_state=0), Xi, yi, nozip)
    yield skl("mlp_regressor", neural_network.MLPRegressor(hidden_layer_sizes=(16,), max_iter=200, random_state=0), Xd, yd)
    yield skl("k_means", cluster.KMeans(4, random_state=0, n_init=1), Xi)
    yield skl("pca", decomposition.PCA(2), Xi)
    yield skl("lda", discriminant_analysis.LinearDiscriminantAnalysis(), Xi, yi, nozip)
    yield skl("gaussian_process", gaussian_process.GaussianProcessRegressor(), Xd[:50], yd[:50])
    for name, m in (("standard_scaler", preprocessing.StandardScaler()), ("min_max_scaler", preprocessing.MinMaxScaler()), ("robust_scaler", preprocessing.RobustScaler()),
                    ("max_abs_scaler", preprocessing.MaxAbsScaler()), ("binarizer", preprocessing.Binarizer(threshold=2.5)), ("polynomial", preprocessing.PolynomialFeatures(2)),
                    ("normalizer_max", preprocessing.Normalizer("max")), ("normalizer_l1", preprocessing.Normalizer("l1")), ("normalizer_l2", preprocessing.Normalizer("l2")),
                    ("k_bins", preprocessing.KBinsDiscretizer(4, encode="ordinal")), ("quantile", preprocessing.QuantileTransformer(n_quantiles=20)), ("power", preprocessing.PowerTransformer())):
        yield skl(name, m, Xi)
    yield skl("standard_scaler_double", preprocessing.StandardScaler(), Xi.astype(np.float64), kind=DoubleTensorType, T=np.float64)
    yield skl("imputer", impute.SimpleImputer(), missing)
    yield skl("imputer_ints", impute.SimpleImputer(missing_values=0, strategy="most_frequent"), rng.integers(0, 5, (60, 3)), kind=Int64TensorType, T=np.int64)
    yield skl("one_hot_ints", preprocessing.OneHotEncoder(handle_unknown="ignore"), rng.integers(0, 5, (60, 3)), kind=Int64TensorType, T=np.int64)
    text = words[rng.integers(0, 3, (60, 2))].astype(object)
    yield skl("one_hot_words", preprocessing.OneHotEncoder(handle_unknown="ignore"), text, kind=StringTensorType, T=object)
    yield skl("ordinal_words", preprocessing.OrdinalEncoder(), text, kind=StringTensorType, T=object)
    column = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=500))
    yield skl("pipeline", column, Xi, yi, nozip)
    sentences = np.array([["the cat sat on the mat"], ["a dog and a cat"], ["birds of a feather"], ["the dog sat"]] * 5, dtype=object)
    for name, v in (("count_vectorizer", feature_extraction.text.CountVectorizer()), ("tfidf", feature_extraction.text.TfidfVectorizer(ngram_range=(1, 2)))):
        v.fit(sentences[:, 0])
        yield name, lambda v=v: to_onnx(v, initial_types=[("X", StringTensorType([None, 1]))], target_opset=17), {"X": sentences}
    enc = preprocessing.LabelEncoder().fit(words)
    yield "label_encoder", lambda: to_onnx(enc, initial_types=[("X", StringTensorType([None]))]), {"X": words[rng.integers(0, 3, 20)].astype(object)}

    import onnxmltools, xgboost, lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType as Floats

    def boosted(name, convert, make, X, y):
        def run():
            more = {} if convert is onnxmltools.convert_xgboost else {"zipmap": False}
            return convert(make().fit(X, y), initial_types=[("X", Floats([None, X.shape[1]]))], target_opset=15, **more)
        return name, run, {"X": X[:80].astype(np.float32)}
    xg, lg = onnxmltools.convert_xgboost, onnxmltools.convert_lightgbm
    sparse = Xi.copy()
    sparse[rng.random(sparse.shape) < 0.1] = np.nan
    cats = np.concatenate([rng.integers(0, 8, (300, 2)), rng.normal(size=(300, 2))], 1)
    target = (cats[:, 0] % 3 == 1) * 2.0 + (cats[:, 1] == 5) + cats[:, 2]
    for args in ((("xgboost", xg, lambda: xgboost.XGBClassifier(n_estimators=20), Xi, yi)), ("xgboost_binary", xg, lambda: xgboost.XGBClassifier(n_estimators=20), Xb, yb),
                 ("xgboost_regressor", xg, lambda: xgboost.XGBRegressor(n_estimators=20), Xd, yd), ("xgboost_missing", xg, lambda: xgboost.XGBClassifier(n_estimators=20), sparse, yi),
                 ("xgboost_random_forest", xg, lambda: xgboost.XGBRFRegressor(n_estimators=20), Xd, yd),
                 ("lightgbm", lg, lambda: lightgbm.LGBMClassifier(n_estimators=20, verbose=-1), Xi, yi), ("lightgbm_binary", lg, lambda: lightgbm.LGBMClassifier(n_estimators=20, verbose=-1), Xb, yb),
                 ("lightgbm_regressor", lg, lambda: lightgbm.LGBMRegressor(n_estimators=20, verbose=-1), Xd, yd), ("lightgbm_missing", lg, lambda: lightgbm.LGBMRegressor(n_estimators=20, verbose=-1), missing, yd),
                 ("lightgbm_categories", lg, lambda: lightgbm.LGBMRegressor(n_estimators=20, verbose=-1, categorical_feature=[0, 1], min_data_per_group=5, cat_smooth=1), cats, target)):
        yield boosted(*args)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("quern")
    ap.add_argument("--keep")
    ap.add_argument("--only")
    args = ap.parse_args()
    import onnx, onnxruntime as ort
    from onnx import numpy_helper
    ort.set_default_logger_severity(4)
    folder = args.keep or tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    good = bad = 0
    for name, convert, feeds in models():
        if args.only and args.only not in name:
            continue
        path = os.path.join(folder, name + ".onnx")
        try:
            onnx.save(convert(), path)
        except Exception as e:
            print(f"  converter fails  {name}: {type(e).__name__} {str(e)[:80]!r}")
            continue
        try:
            session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            want = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))
        except Exception as e:
            print(f"  peer fails  {name}: {str(e)[:120]}")
            continue
        out = os.path.join(folder, name)
        command = [args.quern, "run", path, "--threads", "2", "--output-dir", out]
        for k, v in feeds.items():
            at = os.path.join(folder, f"{name}.{k}")
            if v.dtype == object:
                with open(at + ".pb", "wb") as f:
                    f.write(numpy_helper.from_array(v, k).SerializeToString())
                command += ["--input", f"{k}={at}.pb"]
            else:
                np.save(at + ".npy", v)
                command += ["--input", f"{k}={at}.npy"]
        r = subprocess.run(command, capture_output=True, text=True)
        why = r.stderr.strip().replace("\n", " ")[:300] if r.returncode else ""
        for k, w in want.items():
            if why:
                break
            stem = os.path.join(out, k)
            if not isinstance(w, np.ndarray):
                continue  # sequences of maps
            if os.path.exists(stem + ".npy"):
                g = np.load(stem + ".npy")
            else:
                with open(stem + ".pb", "rb") as f:
                    g = numpy_helper.to_array(onnx.TensorProto.FromString(f.read()))
            if g.shape != w.shape:
                why = f"{k} has shape {g.shape}, wanted {w.shape}"
            elif w.dtype.kind in "OUS":
                g = np.array([x.decode() if isinstance(x, bytes) else x for x in g.reshape(-1)])
                if (g != w.reshape(-1)).any():
                    why = f"{k}: {(g != w.reshape(-1)).sum()} labels differ"
            elif not np.allclose(g, w, rtol=1e-4, atol=1e-5, equal_nan=True):
                i = np.nanargmax(np.abs(g.astype(float) - w))
                why = f"{k} differs: {g.reshape(-1)[i]} where {w.reshape(-1)[i]} was wanted, {np.sum(~np.isclose(g, w, 1e-4, 1e-5, True))} of {w.size}"
        print(f"  {'DIFFERS ' if why else 'agrees  '}    {name}{': ' + why if why else ''}", flush=True)
        good, bad = good + (not why), bad + bool(why)
    print(f"{good} agree, {bad} differ")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
