"""A DDPM in pixel space (diffusers UNet2DModel, Ho et al. 2020): 32x32 pictures of one shape on a plain background, by
the same scenes as the other parts. The schedule is the paper's; the network predicts v (Salimans and Ho 2022), which
learns flat colours in a fraction of the steps that predicting the noise takes.

Writes a DDPMPipeline's folder with f16 weights, and a sheet of 64 pictures by DDPM and by DDIM.

    python train_pixels.py --out ../../shapes-ddpm --minutes 60
    python train_pixels.py --out shapes-ddpm --device cuda --procs 1 --batch 512 --steps 40000
"""
import argparse
import os
import time

import torch
import torch.nn.functional as F
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

import scenes
from common import Ema, device_of, launch, lr_at, progress, setup, sync_grads

SIZE = 32
SCHEDULE = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True,
                prediction_type="v_prediction")


def make_unet(channels):
    """ddpm-cifar10-32's form, narrower: attention at 8x8 and in the middle, groups of 8 channels as in the demo model."""
    levels = len(channels)
    return UNet2DModel(
        sample_size=SIZE, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=channels,
        norm_num_groups=8, attention_head_dim=None, downsample_padding=0, norm_eps=1e-6,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1))


@torch.no_grad()
def damp(unet):
    """Residual branches and the output start small, as in the original DDPM code."""
    for name, m in unet.named_modules():
        if name.endswith(("conv2", "to_out.0", "conv_out")) and hasattr(m, "weight"):
            m.weight.mul_(0.1)
            m.bias.zero_()


def worker(rank, world, args):
    setup(rank, world, args.port)
    dev = device_of(args)
    torch.manual_seed(0)
    if args.resume:
        unet = UNet2DModel.from_pretrained(f"{args.out}/unet").float()
    else:
        unet = make_unet(tuple(args.channels))
        damp(unet)
    unet.to(dev)
    params = list(unet.parameters())
    opt = torch.optim.AdamW(params, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.0)
    ema = Ema([unet], args.ema)
    acp = DDPMScheduler(**SCHEDULE).alphas_cumprod.to(dev)
    if rank == 0:
        print(f"unet {sum(p.numel() for p in params) / 1e6:.3f} M", flush=True)
    torch.manual_seed(args.seed + rank)
    t0, avg, step = time.time(), None, 0
    while True:
        p = progress(time.time() - t0, step, args)
        if p >= 1:
            break
        for group in opt.param_groups:
            group["lr"] = args.lr * lr_at(p, step, args.warmup, args.decay_from)
        b = args.batch // world
        sc = scenes.sample_scenes(b, p_two=0.0)
        larger = sc["size"] == 0                 # half of 64 pixels leaves too little of a small star or ring
        sc["geo"][..., 2] = torch.where(larger, sc["geo"][..., 2] + 5.0, sc["geo"][..., 2])
        x = scenes.render({k: v.to(dev) for k, v in sc.items()}, SIZE)
        # A quasi-random spread over the time makes the mean loss of a small batch less noisy. Half of it is where
        # shapes are decided: above, hardly anything of a picture is left.
        u = (torch.rand(1) + torch.arange(b) / b) % 1
        u = torch.where(torch.arange(b) % 2 == 0, u, 0.45 * u)
        t = (u * 1000).long().clamp(max=999).to(dev)
        signal, sigma = acp[t].view(-1, 1, 1, 1).sqrt(), (1 - acp[t]).view(-1, 1, 1, 1).sqrt()
        noise = torch.randn_like(x)
        with torch.autocast(dev.type, torch.bfloat16, enabled=args.bf16):
            v = unet(signal * x + sigma * noise, t).sample
        loss = F.mse_loss(v.float(), signal * noise - sigma * x)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        sync_grads(params, world)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        ema.update()
        avg = loss.item() if avg is None else 0.98 * avg + 0.02 * loss.item()
        step += 1
        if rank == 0 and step % 50 == 0:
            print(f"step {step} loss {avg:.4f} {time.time() - t0:.0f} s", flush=True)
        if rank == 0 and step % args.save_every == 0:
            export(unet, ema, args.out)
    if rank == 0:
        export(unet, ema, args.out)


def export(unet, ema, out):
    """The averaged weights in f16, with the schedule that they were trained for."""
    ema.swap()
    half = make_unet(unet.config.block_out_channels)
    half.load_state_dict(unet.state_dict())
    ema.swap()
    scheduler = DDPMScheduler(**SCHEDULE, variance_type="fixed_small")
    DDPMPipeline(unet=half.half(), scheduler=scheduler).save_pretrained(out)


def sheet(out, path, ddim):
    """64 pictures side by side."""
    pipe = (DDIMPipeline if ddim else DDPMPipeline).from_pretrained(out)
    if ddim:
        pipe.scheduler = DDIMScheduler(**SCHEDULE)
    steps = 50 if ddim else 1000
    pictures = pipe(64, torch.Generator().manual_seed(1), num_inference_steps=steps, output_type="np").images
    from PIL import Image
    grid = (pictures.reshape(8, 8, SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4).reshape(8 * SIZE, 8 * SIZE, 3) * 255).round()
    Image.fromarray(grid.astype("uint8")).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--procs", type=int, default=os.cpu_count())
    parser.add_argument("--port", type=int, default=29514)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 80])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10 ** 6)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay-from", type=float, default=0.4)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--resume", action="store_true", help="go on from the folder's weights")
    parser.add_argument("--bf16", action="store_true", help="compute in bf16 where f32 is not needed")
    parser.add_argument("--save-every", type=int, default=1000)
    parser.add_argument("--sheet", help="draw 64 pictures with the folder instead of training: the file's stem")
    args = parser.parse_args()
    if args.sheet:
        for ddim in (False, True):
            sheet(args.out, f"{args.sheet}-{'ddim' if ddim else 'ddpm'}.png", ddim)
    else:
        launch(worker, args, args.port)
