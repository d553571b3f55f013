"""Exercises of notebook 17: what is right, and which mistakes get a hint of their own."""
import numpy as np

from kernels.numpy_ops import conv, conv_input_grad
from tutorial.checks import Exercise

rng = np.random.default_rng(17)


# ---------------------------------------------------------------------------------------- 17.1
def mean_colors(maps, photos, classes):
    return np.array([photos[maps == k].mean(0) for k in range(classes)])


def over_all_pixels(maps, photos, classes):
    """Pixels of other classes count as black."""
    return np.array([(photos * (maps == k)[..., None]).mean((0, 1, 2)) for k in range(classes)])


def in_uint8(maps, photos, classes):
    """Sums that start again at 256."""
    return np.array([photos[maps == k].sum(0, dtype=np.uint8) / (maps == k).sum()
                     for k in range(classes)])


def sums_of_colors(maps, photos, classes):
    return np.array([photos[maps == k].sum(0) for k in range(classes)])


def map_by_map(maps, photos, classes):
    """The mean of each photo's mean."""
    return np.array([np.mean([photo[m == k].mean(0) for m, photo in zip(maps, photos)
                              if (m == k).any()], 0) for k in range(classes)])


def one_grey(maps, photos, classes):
    """All channels together."""
    return np.array([photos[maps == k].mean() for k in range(classes)])


def rounded(maps, photos, classes):
    return mean_colors(maps, photos, classes).astype(np.uint8)


def medians(maps, photos, classes):
    return np.array([np.median(photos[maps == k], 0) for k in range(classes)])


def scaled(maps, photos, classes):
    return mean_colors(maps, photos, classes) / 127.5 - 1


# ---------------------------------------------------------------------------------------- 17.2
def walked(order=reversed, start=1, step=lambda r, kernel, stride: (r - 1) * stride + kernel):
    """receptive_field with some parts exchanged."""
    def field(layers):
        r = start
        for kernel, stride in order(layers):
            r = step(r, kernel, stride)
        return r
    return field


receptive_field = walked()


def own_stride(layers):
    """Each layer's kernel is spread by its own stride, not by those before it."""
    r, apart = 1, 1
    for kernel, stride in layers:
        apart *= stride
        r += (kernel - 1) * apart
    return r


# ---------------------------------------------------------------------------------------- 17.3
def joined(join):
    """A gradient of a, made of what comes through both convolutions and past them."""
    def gradient(dy, w2, w3):
        c3 = w3.shape[2]
        dc, dskip = dy[..., :c3], dy[..., c3:]
        return join(conv_input_grad(conv(dc, w3, 2, 1), w2, dskip.shape, 2, 1), dskip)
    return gradient


small_unet_grad = joined(lambda through, past: through + past)


def parts_exchanged(dy, w2, w3):
    """a first, then c. It stops if both have different numbers of channels."""
    c1 = w2.shape[2]
    dskip, dc = dy[..., :c1], dy[..., c1:]
    return conv_input_grad(conv(dc, w3, 2, 1), w2, dskip.shape, 2, 1) + dskip


# ---------------------------------------------------------------------------------------- 17.4
def of_fake(sign=1, size=lambda fake: fake.size, part=np.s_[..., -3:], error=np.sign, weight=1):
    """gradient_of_fake with some parts exchanged."""
    def gradient(fake, photo, dpair):
        return sign * error(fake - photo) / size(fake) + weight * dpair[part]
    return gradient


gradient_of_fake = of_fake()


def divided_together(fake, photo, dpair):
    return (np.sign(fake - photo) + dpair[..., -3:]) / fake.size


def product_of_both(fake, photo, dpair):
    return np.sign(fake - photo) / fake.size * dpair[..., -3:]


def whole_pair(fake, photo, dpair):
    """The map's part too."""
    da = dpair.copy()
    da[..., -3:] += np.sign(fake - photo) / fake.size
    return da


# ---------------------------------------------------------------------------------------- 17.5
def ious(found, real, classes, both=lambda a, b: (a & b).sum(), either=lambda a, b: (a | b).sum()):
    """(classes,): both / either for each class, NaN or infinite where either is 0."""
    masks = [(found == k, real == k) for k in range(classes)]
    with np.errstate(all="ignore"):
        return np.array([both(a, b) / either(a, b) for a, b in masks])


def mean_of(values):
    """The mean of the finite ones, NaN if there are none."""
    values = values[np.isfinite(values)]
    return values.mean() if values.size else np.nan


def mean_iou(**parts):
    """my_mean_iou with other parts of `ious`."""
    return lambda found, real, classes: mean_of(ious(found, real, classes, **parts))


my_mean_iou = mean_iou()


def accuracy(found, real, classes):
    return (found == real).mean()


def of_all_pixels(found, real, classes):
    """All classes together, before the division."""
    both = (found == real).sum()
    return both / (2 * found.size - both)


def of_each_map(found, real, classes):
    return np.mean([my_mean_iou(f[None], r[None], classes) for f, r in zip(found, real)])


def of_each_class(found, real, classes):
    values = ious(found, real, classes)
    return values[~np.isnan(values)]


def of_classes(*sets):
    """The mean over the classes that occur in these sets: 0 for found, 1 for real."""
    def measured(found, real, classes):
        there = [k for k in range(classes) if all((k == (found, real)[i]).any() for i in sets)]
        return mean_of(ious(found, real, classes)[there])
    return measured


def by_size(found, real, classes):
    sizes = [(real == k).mean() for k in range(classes)]
    return np.nansum(sizes * ious(found, real, classes))


def with_empty(value):
    """A class in neither set counts as `value`."""
    return lambda found, real, classes: np.nan_to_num(ious(found, real, classes), nan=value).mean()


maps = np.where(rng.random((3, 5, 6)) < 0.5, 0, rng.integers(0, 4, (3, 5, 6)))  # 0 is frequent
maps[0, 0, :4] = range(4)
photos = rng.integers(0, 256, (3, 5, 6, 3)).astype(np.uint8)
four = rng.standard_normal((4, 4, 4, 9))
dy, w2, w3 = (rng.standard_normal(shape) for shape in
              ((3, 8, 6, 7), (4, 4, 5, 9), (4, 4, 2, 9)))
fake, photo = rng.standard_normal((2, 4, 5, 7, 3))
dpair = rng.standard_normal((4, 5, 7, 8))
found = np.where(rng.random(maps.shape) < 0.7, maps, rng.integers(0, 4, maps.shape))
found[1], maps_of_three = maps[1], np.where(maps == 3, 0, maps)

EXERCISES = {
    "17.1": Exercise(
        mean_colors,
        ("maps == k is a mask (N, H, W). photos[maps == k] are the colours of all its pixels, "
         "(n, 3).",
         "photos[maps == k].mean(0), for each k, in one array."),
        inputs=[(maps, photos, 4), (maps_of_three, photos, 3)],
        sizes={"the number of pixels": maps.size},
        traps={
            "you divide by the number of all pixels. The mean is over the pixels of the class.":
                over_all_pixels,
            "the sum of uint8 numbers starts again at 0 after 255. Take .mean(), or make floats "
            "first.": in_uint8,
            "these are sums. Divide by the number of pixels of the class.": sums_of_colors,
            "this is the mean of the photos' means, so pixels of photos with few of them count "
            "more. Take all pixels of the class together.": map_by_map,
            "this is one number for each class, over all three channels. Take the mean over the "
            "pixels only: .mean(0).": one_grey,
            "the means are cut to whole numbers. Leave them as floats.": rounded,
            "these are medians. The mean makes the squared error smallest.": medians,
            "leave the colours as they are, from 0 to 255.": scaled}),
    "17.2": Exercise(
        receptive_field,
        ("Go from the last layer to the first, with reversed(layers). Start with r = 1.",
         "In each layer r becomes (r - 1) * stride + kernel."),
        inputs=[([(4, 2), (4, 2), (3, 1)],), ([(4, 2)] * 4,), ([(3, 1)],), ([],),
                ([(11, 2), (7, 3), (5, 1)],), ([(2, 3), (5, 1), (3, 2)],)],
        traps={
            "you begin with the first layer. The formula goes from the last layer to the first.":
                walked(order=list),
            "this is right for strides of 1. With a stride of 2, neighbouring outputs are 2 pixels "
            "apart.": walked(step=lambda r, kernel, stride: r - 1 + kernel),
            "the kernels overlap, so their sizes do not simply add up.":
                lambda layers: sum(kernel for kernel, _ in layers) or 1,
            "this is one kernel. The layers before it make it see more.":
                lambda layers: layers[0][0] if layers else 1,
            "without layers, an output is the input itself: 1 pixel.":
                lambda layers: receptive_field(layers) if layers else 0,
            "r windows begin s pixels apart: there are r - 1 distances. It is (r - 1) * stride + "
            "kernel.": walked(step=lambda r, kernel, stride: r * stride + kernel),
            "an output sees one number of itself: start with r = 1.": walked(start=0),
            "a layer is (kernel, stride), in this order.":
                walked(step=lambda r, kernel, stride: (r - 1) * kernel + stride),
            "this is the number of pixels in the square. The question is how many in a row.":
                lambda layers: receptive_field(layers) ** 2,
            "this is how far apart two neighbouring outputs are, not what one of them sees.":
                walked(step=lambda r, kernel, stride: r * stride),
            "the kernels' sizes are not multiplied: a window of r outputs is r - 1 strides and one "
            "kernel long.": walked(step=lambda r, kernel, stride: r * kernel),
            "the strides *before* a layer say how far apart its inputs are. You use its own stride "
            "too.": own_stride}),
    "17.3": Exercise(
        small_unet_grad,
        ("The first C3 channels of dy belong to c, the others to a. C3 is w3.shape[2].",
         "db = conv(dc, w3, 2, 1), because c is a transposed convolution. Then da is "
         "conv_input_grad(db, w2, dskip.shape, 2, 1) plus dskip."),
        inputs=[(dy, w2, w3), (dy, w2[:, :, :3], four)],
        traps={
            "the skip connection is missing: a goes straight into y as well, so its part of dy is "
            "added.": joined(lambda through, past: through),
            "this is the skip connection alone. a goes through the convolutions too.":
                joined(lambda through, past: past + 0),
            "both gradients are added, without dividing by 2: the loss changes along both ways.":
                joined(lambda through, past: (through + past) / 2),
            "both gradients are added, not subtracted.": joined(np.subtract),
            "both gradients are added, not multiplied.": joined(np.multiply),
            "concat([c, a]) has c first: its channels are the first C3 of dy.": parts_exchanged,
            "the two gradients of a are added. You put them side by side.":
                joined(lambda through, past: np.concatenate([through, past], 3)),
            "the part of a is its last C1 channels, not the last one: dy[..., C3:].":
                joined(lambda through, past: through + past[..., -1:])}),
    "17.4": Exercise(
        gradient_of_fake,
        ("The derivative of |x| is its sign: np.sign. And the error is a mean over all numbers of "
         "fake.",
         "np.sign(fake - photo) / fake.size, plus the last three channels of dpair."),
        inputs=[(fake, photo, dpair)],
        traps={
            "the sign of the error's part is wrong. If fake is larger than the photo, the error "
            "grows with fake: np.sign(fake - photo).": of_fake(sign=-1),
            "the error is a mean over all numbers. Divide its part by fake.size.":
                of_fake(size=lambda fake: 1),
            "the error is a mean over all numbers, not over the maps only. Divide by fake.size.":
                of_fake(size=len),
            "the error is a mean over the channels too. Divide by fake.size.":
                of_fake(size=lambda fake: fake[..., 0].size),
            "the error is a mean over all maps. You divide by the size of one.":
                of_fake(size=lambda fake: fake[0].size),
            "these are the first channels of dpair, the map's. The photo's are the last three.":
                of_fake(part=np.s_[..., :3]),
            "this is the gradient of the squared error. That of |x| is its sign.":
                of_fake(error=lambda x: 2 * x),
            "this is the error itself, not its gradient. The derivative of |x| is its sign.":
                of_fake(error=np.abs),
            "the derivative of |x| is its sign, without its size.": of_fake(error=lambda x: x),
            "D's part is divided already. Only the sign must be divided by fake.size.":
                divided_together,
            "the photo's channels are the last three. Where the map has other than three classes, "
            "3:6 is something else.": of_fake(part=np.s_[..., 3:6]),
            "what D says about the photo is missing: add the last three channels of dpair.":
                of_fake(weight=0),
            "both gradients are added. You subtract that of D.": of_fake(weight=-1),
            "this is what D says about the photo alone. The error's part is missing.":
                of_fake(sign=0),
            "both gradients are added, not multiplied.": product_of_both,
            "the map's channels do not belong to the photo. Return the last three only.":
                whole_pair}),
    "17.5": Exercise(
        my_mean_iou,
        ("For each class k: (found == k) & (real == k) are the pixels of the intersection, and | "
         "gives those of the union. Leave out a class whose union has none.",
         "both.sum() / either.sum() for each class, and np.mean of these numbers."),
        inputs=[(found, maps, 4), (np.where(found == 3, 0, found), maps_of_three, 4),
                (maps, maps, 4), (np.zeros_like(maps), maps, 4), (maps, np.zeros_like(maps), 4),
                (maps_of_three, np.roll(maps_of_three, 1, 0), 3)], sizes={},
        traps={
            "this is the share of pixels that agree. There a class counts by its size. Compute "
            "the IoU of each class, and then their mean.": accuracy,
            "you add up all classes before you divide. Divide for each class, then take the mean.":
                of_all_pixels,
            "this is the mean of the maps' own values. Count over all maps together.": of_each_map,
            "this is the sum over the classes. Take the mean.":
                lambda *arguments: np.nansum(ious(*arguments)),
            "these are the IoUs of the classes. Return their mean.": of_each_class,
            "a class that only one of the sets has counts too, with 0. Leave out only those that "
            "neither has.": of_classes(0, 1),
            "a class that only `found` has counts too, with 0. Leave out only those that neither "
            "has.": of_classes(1),
            "^ finds the pixels that have the class in exactly one map. The union has those of "
            "both as well: |.": mean_iou(either=lambda a, b: (a ^ b).sum()),
            "each class counts by its size here. The mean IoU counts all alike.": by_size,
            "the ground, class 0, counts too.":
                lambda *arguments: mean_of(ious(*arguments)[1:]),
            "a class in neither set gives 0 / 0. Leave it out.":
                lambda *arguments: ious(*arguments).mean(),
            "a class in neither set counts as 0 here. Leave it out of the mean.": with_empty(0),
            "a class in neither set counts as 1 here. Leave it out of the mean.": with_empty(1),
            "pixels that have the class in both maps are counted twice below the line. The union "
            "counts them once: |.": mean_iou(either=lambda a, b: a.sum() + b.sum()),
            "you divide by the pixels of the class in `real`. That is the recall. Divide by the "
            "union.": mean_iou(either=lambda a, b: b.sum()),
            "you divide by the pixels of the class in `found`. That is the precision. Divide by "
            "the union.": mean_iou(either=lambda a, b: a.sum()),
            "this is the Dice coefficient, twice the intersection over both sizes. IoU divides the "
            "intersection by the union.": mean_iou(both=lambda a, b: 2 * (a & b).sum(),
                                                   either=lambda a, b: a.sum() + b.sum()),
            "you divide by the number of all pixels, not by the union.":
                mean_iou(either=lambda a, b: a.size)}),
}
